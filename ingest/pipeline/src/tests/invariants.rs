//! What must hold after each restart and at the end, whatever happened.

use ingest_quarantine::{Filter, Reason, list};
use std::collections::BTreeSet;

use schemas_evidence::{Entry, Ledger};

use super::desk::Key;
use super::world::World;

impl World {
    /// Checks everything that can be checked while the process is idle and has just started.
    pub(super) fn check_all(&mut self) {
        if self.life.is_none() {
            return;
        }
        let problems = [self.promises_are_kept(), self.nothing_is_doubled(), self.contradictions_are_kept()];
        for problem in problems.into_iter().filter_map(Result::err) {
            self.problem(problem);
        }
        self.batches_enter_once();
    }

    fn stored(&self, key: Key) -> Result<Option<bytes::Bytes>, String> {
        let Some(life) = &self.life else { return Ok(None) };
        let found = life.lake.find(key.0, key.1, key.2).map_err(|error| format!("find: {error}"))?;
        Ok(found.map(|stored| stored.frame))
    }

    /// G2: every frame that its sender may forget is stored with the bytes that were sent.
    fn promises_are_kept(&self) -> Result<(), String> {
        let desk = self.desk.lock();
        for (key, frame) in &desk.promised {
            match self.stored(*key)? {
                Some(bytes) if bytes == desk.sent[*frame].bytes => {}
                Some(_) => return Err(format!("frame {frame} was accepted, another one is stored")),
                None => return Err(format!("frame {frame} was accepted and is not stored")),
            }
        }
        Ok(())
    }

    /// G2: batches and tail together hold each number at most once, and nothing that was not sent.
    fn nothing_is_doubled(&self) -> Result<(), String> {
        let Some(life) = &self.life else { return Ok(()) };
        let desk = self.desk.lock();
        let keys: BTreeSet<Key> = desk.sent.iter().filter_map(|made| made.key).collect();
        let mut found = 0;
        for key in keys {
            let Some(bytes) = self.stored(key)? else { continue };
            found += 1;
            if !desk.sent.iter().any(|made| made.key == Some(key) && made.bytes == bytes) {
                return Err(format!("{key:?} is stored with bytes that nobody sent"));
            }
        }
        let view = life.lake.view();
        let sealed: u64 = view.batches.iter().map(|batch| batch.manifest.frames).sum();
        let waiting = life.lake.waiting().0;
        if sealed + waiting != found {
            return Err(format!("{sealed} frames in batches and {waiting} in the tail, but {found} numbers"));
        }
        Ok(())
    }

    /// Every frame that was told to contradict another one is kept as evidence, and the other one is stored.
    fn contradictions_are_kept(&self) -> Result<(), String> {
        let desk = self.desk.lock();
        let filter = Filter {
            reason: Some(Reason::Equivocation),
            device: None,
            count_max: usize::MAX,
            bytes_max: usize::MAX,
        };
        let kept = list(&self.dir.path().join("quarantine"), &filter);
        let (kept, _) = kept.map_err(|error| error.to_string())?;
        for frame in &desk.contradicted {
            let made = &desk.sent[*frame];
            let Some(key) = made.key else { continue };
            match self.stored(key)? {
                None => return Err(format!("frame {frame} contradicts a frame that is not stored")),
                Some(bytes) if bytes == made.bytes => {
                    return Err(format!("frame {frame} is stored and was told to contradict"));
                }
                Some(_) => {}
            }
            if !kept.iter().any(|entry| entry.frame == made.bytes) {
                return Err(format!("frame {frame} contradicts another and is not in the quarantine"));
            }
        }
        Ok(())
    }

    /// A batch has one entry in the log.
    fn batches_enter_once(&self) {
        let ledger = &self.ledger.durable;
        let mut known = BTreeSet::new();
        for text in ledger.entries(0, ledger.size()).unwrap() {
            if let Ok(Entry::Batch { id, .. }) = Entry::parse(&text)
                && !known.insert(id.clone())
            {
                self.problem(format!("batch {id} is in the log twice"));
            }
        }
    }

    /// G5: nothing that a crash does looks like tampering.
    pub(super) fn audit(&self) {
        let directory = self.dir.path().join("lake");
        match ingest_lake::audit(&directory, self.ledger.durable.as_ref(), &mut |_, _| {}) {
            Ok(findings) if findings.is_empty() => {}
            other => self.problem(format!("audit: {other:?}")),
        }
    }
}
