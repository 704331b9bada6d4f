//! Where figures were taken: they mean little without.

use std::process::Command;

/// Instruction sets on which a verifier's speed depends.
const FLAGS: [&str; 7] = ["avx2", "bmi2", "adx", "sha_ni", "avx512f", "avx512ifma", "avx512vl"];

/// The machine and its compiler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// The CPU's name, family and model.
    pub cpu: String,
    /// Cores that the system shows.
    pub cores: usize,
    /// Those of the interesting instruction sets that it has.
    pub flags: Vec<&'static str>,
    /// As `rustc --version` says.
    pub rustc: String,
}

impl Machine {
    /// This one.
    #[must_use]
    pub fn here() -> Machine {
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let rustc = Command::new("rustc").arg("--version").output().ok().filter(|out| out.status.success());
        let rustc = rustc.map_or_else(
            || "rustc unknown".to_owned(),
            |out| String::from_utf8_lossy(&out.stdout).trim().to_owned(),
        );
        Machine::read(&cpuinfo, rustc)
    }

    fn read(cpuinfo: &str, rustc: String) -> Machine {
        let field = |name: &str| {
            let line =
                cpuinfo.lines().filter_map(|line| line.split_once(':')).find(|(key, _)| key.trim() == name);
            line.map_or("unknown", |(_, value)| value.trim())
        };
        let has: Vec<&str> = field("flags").split_whitespace().collect();
        Machine {
            cpu: format!("{} family {} model {}", field("model name"), field("cpu family"), field("model")),
            cores: cpuinfo.lines().filter(|line| line.starts_with("processor")).count(),
            flags: FLAGS.into_iter().filter(|flag| has.contains(flag)).collect(),
            rustc,
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

#[cfg(test)]
mod tests {
    use super::*;

    // Guarantee: what Linux says of a CPU is found, and what it does not say is no error.
    #[test]
    fn cpuinfo_is_read() {
        let text = "processor\t: 0\nmodel name\t: AMD EPYC (TM) 9B14\ncpu family\t: 25\nmodel\t\t: 17\nflags\t\t: fpu avx2 sha_ni\n\nprocessor\t: 1\n";
        let machine = Machine::read(text, String::new());
        assert_eq!(machine.slug(), "amd-epyc-tm-9b14-family-25-model-17");
        assert_eq!((machine.cores, machine.flags), (2, vec!["avx2", "sha_ni"]));
        assert_eq!(Machine::read("", String::new()).slug(), "unknown-family-unknown-model-unknown");
    }
}
