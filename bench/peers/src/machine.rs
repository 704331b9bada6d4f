//! Where figures were taken: they mean little without. The folder is the one that `bench-hot` names.

/// The machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// The CPU's name, family and model.
    pub cpu: String,
    /// Cores that the system shows.
    pub cores: usize,
}

impl Machine {
    /// This one.
    #[must_use]
    pub fn here() -> Machine {
        Machine::read(&std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default())
    }

    fn read(cpuinfo: &str) -> Machine {
        let field = |name: &str| {
            let mut lines = cpuinfo.lines().filter_map(|line| line.split_once(':'));
            lines.find(|(key, _)| key.trim() == name).map_or("unknown", |(_, value)| value.trim())
        };
        Machine {
            cpu: format!("{} family {} model {}", field("model name"), field("cpu family"), field("model")),
            cores: cpuinfo.lines().filter(|line| line.starts_with("processor")).count(),
        }
    }

    /// The CPU as part of a folder's name.
    #[must_use]
    pub fn slug(&self) -> String {
        let plain = |letter: char| if letter.is_ascii_alphanumeric() { letter } else { ' ' };
        let words = self.cpu.to_ascii_lowercase().chars().map(plain).collect::<String>();
        words.split_whitespace().collect::<Vec<_>>().join("-")
    }
}

/// The load averages of now: above the number of cores, others used the machine too.
#[must_use]
pub fn load_average() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().take(3).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    // Guarantee: the folder's name is the one that bench-hot makes of the same machine.
    #[test]
    fn slugs_agree() {
        let text = "processor\t: 0\nmodel name\t: AMD EPYC (TM) 9B14\ncpu family\t: 25\nmodel\t\t: 17\n";
        let machine = Machine::read(text);
        assert_eq!((machine.slug().as_str(), machine.cores), ("amd-epyc-tm-9b14-family-25-model-17", 1));
    }
}
