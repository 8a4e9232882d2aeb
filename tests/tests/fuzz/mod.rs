//! Damage by chance: tables in which one object is not what it should be, text that nobody would write, programs that
//! end in the middle. Whatever comes, there is an answer: no panic, no abort, at most 512 MB, within five seconds.
//!
//! A target first runs what is stored in `fixtures/fuzz/TARGET`, inputs that hurt once, then new ones: for
//! `LAKEHOUSE_FUZZ_SECONDS`, or half a minute with `CI` set. An input that hurts is written to a file; put it into that
//! folder when the cause is removed. `LAKEHOUSE_SEED` repeats a run. The input at hand lies in a file too, in case the
//! process is killed by it.

pub(crate) mod alloc;
mod avro;
mod mutate;
mod tables;
mod words;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, LazyLock, Mutex, Once, PoisonError};
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::BoxFuture;
use lakehouse_core::store::clock;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::model::crash;
use crate::support::number;

/// How long a target runs if nobody says: in CI, and by whoever tries a change.
const SECONDS: (u64, u64) = (30, 3);
const PATIENCE: Duration = Duration::from_secs(5);
/// A program is a table's life, in every format, with a store that clients ask again and again when it is gone.
const PATIENCE_FOR_PROGRAMS: Duration = Duration::from_secs(120);
const MEMORY: i64 = 512 << 20;

/// Where an input belongs, and its bytes. In a file: a line, then the bytes.
#[derive(Debug, Clone)]
struct Input {
    head: String,
    bytes: Vec<u8>,
}

impl Input {
    fn text(text: String) -> Self {
        Self {
            head: String::new(),
            bytes: text.into_bytes(),
        }
    }

    fn load(path: &Path) -> Self {
        let content = fs::read(path).unwrap();
        let line = content
            .iter()
            .position(|byte| *byte == b'\n')
            .expect("a line that says where it belongs");
        Self {
            head: String::from_utf8(content[..line].to_vec()).unwrap(),
            bytes: content[line + 1..].to_vec(),
        }
    }

    fn store(&self, path: &Path) {
        let content = [self.head.as_bytes(), b"\n", &self.bytes].concat();
        fs::write(path, content).unwrap();
    }
}

type Try = fn(Arc<Input>) -> BoxFuture<'static, Result<(), String>>;

/// What threads of targets panicked with, by target.
static PANICS: LazyLock<Mutex<HashMap<String, String>>> = LazyLock::new(Mutex::default);

/// Notes panics of the targets' threads, wherever they are caught.
fn note_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let thread = std::thread::current();
            match thread.name().and_then(|name| name.strip_prefix("fuzz ")) {
                Some(target) => {
                    let mut panics = PANICS.lock().unwrap_or_else(PoisonError::into_inner);
                    panics.insert(target.to_owned(), panic.to_string());
                }
                None => usual(panic),
            }
        }));
    });
}

struct Fuzz {
    target: &'static str,
    patience: Duration,
    runtime: Runtime,
    /// By its threads.
    held: &'static alloc::Held,
    run: Try,
    /// The input at hand.
    current: PathBuf,
    /// Where those that hurt are kept.
    kept: PathBuf,
}

impl Fuzz {
    fn new(target: &'static str, run: Try) -> Self {
        note_panics();
        // For as long as the process lives, as threads may.
        let held: &'static alloc::Held = Box::leak(Box::default());
        let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fuzz");
        fs::create_dir_all(&kept).unwrap();
        Self {
            target,
            patience: match target {
                "programs" => PATIENCE_FOR_PROGRAMS,
                _ => PATIENCE,
            },
            runtime: tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .thread_name(format!("fuzz {target}"))
                .on_thread_start(move || alloc::watch(held))
                .on_thread_stop(alloc::leave)
                .enable_all()
                .build()
                .unwrap(),
            held,
            run,
            current: kept.join(format!("{target}.current")),
            kept,
        }
    }

    /// What is wrong with how an input was met. A machine that is busy with other things gets a second chance.
    fn attempt(&self, input: &Input) -> Result<(), String> {
        let answer = self.once(input).or_else(|| self.once(input));
        answer.unwrap_or_else(|| Err(format!("no answer within {:?}", self.patience)))
    }

    /// The same; `None` if there was no answer in time.
    fn once(&self, input: &Input) -> Option<Result<(), String>> {
        self.held.peak();
        let (sender, receiver) = channel();
        let run = (self.run)(Arc::new(input.clone()));
        self.runtime.spawn(async move {
            let _ = sender.send(run.await);
        });
        let done = receiver.recv_timeout(self.patience);
        let panic = PANICS
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(self.target);
        // Libraries panic at damage that they do not expect. Whoever calls them turns that into an answer, which there
        // must be all the same.
        let of_others = |panic: &String| !panic.contains("lakehouse-core");
        let panic = panic.filter(|panic| !of_others(panic));
        Some(match (panic, done) {
            (Some(panic), _) => Err(panic),
            (None, Err(RecvTimeoutError::Timeout)) => return None,
            (None, Err(RecvTimeoutError::Disconnected)) => Err("it was given up".into()),
            (None, Ok(Err(wrong))) => Err(wrong),
            (None, Ok(Ok(()))) => match self.held.peak() {
                peak if peak > MEMORY => Err(format!("it took {} MB", peak >> 20)),
                _ => Ok(()),
            },
        })
    }

    fn stored(&self) -> usize {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../fixtures/fuzz")
            .join(self.target);
        let mut stored: Vec<PathBuf> = fs::read_dir(&folder)
            .into_iter()
            .flatten()
            .map(|entry| entry.unwrap().path())
            .collect();
        stored.sort();
        for path in &stored {
            if let Err(wrong) = self.attempt(&Input::load(path)) {
                panic!("{}: {wrong}", path.display());
            }
        }
        stored.len()
    }
}

/// Runs a target.
fn fuzz(target: &'static str, make: impl Fn(&mut StdRng) -> Input, run: Try) {
    let fuzz = Fuzz::new(target, run);
    let stored = fuzz.stored();
    // The same for everyone; another one with every run by hand.
    let first = match number("LAKEHOUSE_FUZZ_SECONDS") {
        Some(_) => clock::now_ms().cast_unsigned(),
        None => 1,
    };
    let first = number("LAKEHOUSE_SEED").unwrap_or(first);
    let usual = match std::env::var_os("CI") {
        Some(_) => SECONDS.0,
        None => SECONDS.1,
    };
    let seconds = Duration::from_secs(number("LAKEHOUSE_FUZZ_SECONDS").unwrap_or(usual));
    let (start, mut seed, mut wrong) = (Instant::now(), first, Vec::new());
    while start.elapsed() < seconds && wrong.len() < 5 {
        let input = make(&mut StdRng::seed_from_u64(seed));
        input.store(&fuzz.current);
        if let Err(why) = fuzz.attempt(&input) {
            let file = fuzz.kept.join(format!("{target}-{seed}"));
            input.store(&file);
            wrong.push(format!(
                "LAKEHOUSE_SEED={seed}: {why}\n  the input is in {}",
                file.display()
            ));
        }
        seed += 1;
    }
    let _ = fs::remove_file(&fuzz.current);
    println!(
        "{target}: {stored} stored inputs, {} new ones from LAKEHOUSE_SEED={first} on",
        seed - first
    );
    fuzz.runtime.shutdown_background();
    assert!(wrong.is_empty(), "{target}\n{}", wrong.join("\n"));
}

/// An object of a sound table whose key is one of those, damaged.
fn object(
    rng: &mut StdRng,
    of: fn(&str) -> bool,
    damage: impl FnOnce(&mut StdRng, &[u8]) -> Vec<u8>,
) -> Input {
    let fitting: Vec<_> = tables::SEEDS
        .iter()
        .flat_map(|seed| seed.objects.iter().map(move |object| (seed, object)))
        .filter(|(_, (key, _))| of(key))
        .collect();
    let (seed, (key, bytes)) = fitting.choose(rng).expect("an object of that kind");
    Input {
        head: format!("{} {key}", seed.name),
        bytes: damage(rng, bytes),
    }
}

fn table(input: Arc<Input>) -> BoxFuture<'static, Result<(), String>> {
    async move {
        let (table, key) = input.head.split_once(' ').expect("a table and a key");
        tables::read(tables::damaged(table, key, input.bytes.clone().into()).await).await
    }
    .boxed()
}

fn damaged_json(rng: &mut StdRng, bytes: &[u8]) -> Vec<u8> {
    if rng.random_bool(0.1) {
        let mut bytes = bytes.to_vec();
        mutate::bytes(rng, &mut bytes, false);
        return bytes;
    }
    let mut lines: Vec<Value> = serde_json::Deserializer::from_slice(bytes)
        .into_iter()
        .map(|line| line.unwrap())
        .collect();
    for _ in 0..rng.random_range(1..=3) {
        let at = rng.random_range(0..lines.len());
        mutate::json(rng, &mut lines[at]);
    }
    lines
        .iter()
        .map(|line| format!("{line}\n"))
        .collect::<String>()
        .into_bytes()
}

/// The footer of a Parquet file, mostly; the file keeps its length, which the table knows.
fn damaged_parquet(rng: &mut StdRng, file: &[u8]) -> Vec<u8> {
    let tail = file.len() - 8;
    let length = u32::from_le_bytes(file[tail..tail + 4].try_into().unwrap()) as usize;
    let (keep, all) = (rng.random_bool(0.9), rng.random_bool(0.1));
    let start = if all { 0 } else { tail - length };
    let mut part = file[start..tail].to_vec();
    mutate::bytes(rng, &mut part, keep);
    let mut out = file[..start].to_vec();
    let length = if all { length } else { part.len() };
    out.extend(part);
    out.extend(u32::try_from(length).unwrap().to_le_bytes());
    out.extend_from_slice(b"PAR1");
    out
}

/// Deletion vectors, mostly with a checksum that agrees.
fn damaged_vectors(rng: &mut StdRng, file: &[u8]) -> Vec<u8> {
    let mut out = file.to_vec();
    mutate::bytes(rng, &mut out, true);
    if rng.random_bool(0.8) {
        let magic = 0x6439_D3D1_u32.to_le_bytes();
        let starts: Vec<usize> = out
            .windows(4)
            .enumerate()
            .filter(|(_, w)| *w == magic)
            .map(|(at, _)| at)
            .collect();
        for start in starts.into_iter().filter(|start| *start >= 4) {
            let length = u32::from_be_bytes(out[start - 4..start].try_into().unwrap()) as usize;
            if let Some(body) = out.get(start..start.saturating_add(length)) {
                let sum = crc32fast::hash(body).to_be_bytes();
                if let Some(place) = out.get_mut(start + length..start + length + 4) {
                    place.copy_from_slice(&sum);
                }
            }
        }
    }
    out
}

/// Two targets at a time, so that there are four on two processors: their time is the clock's.
fn both(one: fn(), other: fn()) {
    std::thread::scope(|threads| {
        let other = threads.spawn(other);
        one();
        other
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

#[test]
fn iceberg_metadata_and_a_manifest_list_always_get_an_answer() {
    both(metadata, manifest_list);
}

#[test]
fn a_manifest_and_a_row_mask_always_get_an_answer() {
    both(manifest, masks);
}

#[test]
fn a_delta_log_entry_and_a_checkpoint_always_get_an_answer() {
    both(log_entry, checkpoint);
}

#[test]
fn a_parquet_file_and_text_that_is_no_condition_always_get_an_answer() {
    both(parquet, expressions);
}

#[test]
fn paths_lie_inside_or_outside_and_a_program_that_ends_at_any_request_leaves_the_rows_before_or_after_it() {
    both(locations, programs);
}

fn metadata() {
    let of = |key: &str| key.ends_with(".metadata.json");
    fuzz("metadata", |rng| object(rng, of, damaged_json), table);
}

fn manifest_list() {
    let of = |key: &str| key.starts_with("metadata/snap-");
    fuzz("manifest_list", |rng| object(rng, of, avro::damage), table);
}

fn manifest() {
    let of = |key: &str| key.ends_with(".avro") && !key.starts_with("metadata/snap-");
    fuzz("manifest", |rng| object(rng, of, avro::damage), table);
}

fn log_entry() {
    let of = |key: &str| key.starts_with("_delta_log/") && key.ends_with(".json");
    fuzz("delta_commit", |rng| object(rng, of, damaged_json), table);
}

fn checkpoint() {
    let of = |key: &str| key.contains(".checkpoint.") || key.ends_with("_last_checkpoint");
    let damage = |rng: &mut StdRng, file: &[u8]| match file.ends_with(b"PAR1") {
        true => damaged_parquet(rng, file),
        false => damaged_json(rng, file),
    };
    fuzz("delta_checkpoint", move |rng| object(rng, of, damage), table);
}

fn masks() {
    let of = |key: &str| key.ends_with(".puffin") || key.ends_with(".bin");
    fuzz("masks", |rng| object(rng, of, damaged_vectors), table);
}

fn parquet() {
    let of = |key: &str| key.ends_with(".parquet") && !key.starts_with("_delta_log/");
    fuzz("parquet", |rng| object(rng, of, damaged_parquet), table);
}

fn expressions() {
    let parse =
        |input: Arc<Input>| async move { words::parse(&String::from_utf8_lossy(&input.bytes)) }.boxed();
    fuzz("expressions", |rng| Input::text(words::expression(rng)), parse);
}

/// A path is inside or outside of a table as a simple rule says.
fn locations() {
    let resolve =
        |input: Arc<Input>| async move { words::resolve(&String::from_utf8_lossy(&input.bytes)) }.boxed();
    fuzz("locations", |rng| Input::text(words::location(rng)), resolve);
}

/// A program that ends at any request leaves the rows before or after it.
fn programs() {
    let run = |input: Arc<Input>| {
        async move {
            crash(
                String::from_utf8_lossy(&input.bytes)
                    .trim()
                    .parse()
                    .expect("a seed"),
            )
            .await
        }
        .boxed()
    };
    fuzz(
        "programs",
        |rng| Input::text(rng.random_range(0..1_u64 << 40).to_string()),
        run,
    );
}
