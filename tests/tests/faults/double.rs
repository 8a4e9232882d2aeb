//! Two faults in one run: also while the first one is being dealt with.

use std::time::Instant;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::support::{setting, soak_until};

async fn two_faults(format: (TableFormat, Option<u8>), runs: u64) {
    let until = soak_until();
    // The same for everyone; another one with every run by hand.
    let by_hand = until.is_some() || std::env::var_os("LAKEHOUSE_DOUBLE_FAULTS").is_some();
    let usual = if by_hand { rand::random() } else { 1 };
    let seed = setting("LAKEHOUSE_SEED", usual);
    println!("{format:?}: LAKEHOUSE_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let place = Place::in_memory(format).await;
    let mut scenes = Vec::new();
    for verb in VERBS {
        scenes.push(Scene::new(&place, format, verb).await);
    }
    let (mut both, mut one) = (0, 0);
    // The second fault is not met if the first ends the run before it.
    while until.map_or(both < runs, |until| Instant::now() < until) {
        let scene = &scenes[random.random_range(0..scenes.len())];
        let mut pick = || loop {
            let fault = FAULTS[random.random_range(0..FAULTS.len())];
            if !means_nothing(fault, scene.verb) {
                return fault;
            }
        };
        let faults = [pick(), pick()];
        let first = random.random_range(1..=scene.requests);
        // Often while the first fault is dealt with, else anywhere after it.
        let second = match random.random_bool(0.5) {
            true => first + random.random_range(1..=6),
            false => first + random.random_range(1..=scene.requests),
        };
        match scene.run(&[(first, faults[0]), (second, faults[1])]).await {
            (2, _) => both += 1,
            _ => one += 1,
        }
    }
    println!("{format:?}: {both} runs with two faults, {one} that met the first alone");
}

fn runs() -> u64 {
    setting("LAKEHOUSE_DOUBLE_FAULTS", 300) / 3
}

#[test]
fn iceberg_v2_survives_two_faults() {
    block_on(two_faults(FORMATS[0], runs()));
}

#[test]
fn iceberg_v3_survives_two_faults() {
    block_on(two_faults(FORMATS[1], runs()));
}

#[test]
fn delta_survives_two_faults() {
    block_on(two_faults(FORMATS[2], runs()));
}
