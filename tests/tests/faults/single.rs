//! Every request of every operation fails in turn, in every way.

use super::activation::{Activation, is_about};
use super::*;

/// Every request that a fault is about (`every` = 1) or every so many of them, others for each fault and operation.
async fn each_request_fails_in_turn(place: Place, format: (TableFormat, Option<u8>), every: usize) {
    let mut runs = 0;
    let mut activation = Activation::default();
    for (shift, verb) in verbs().into_iter().enumerate() {
        let scene = Scene::new(&place, format, verb).await;
        let name = format!("{verb:?}");
        activation.sends(&name, &scene.log);
        for (way, fault) in FAULTS.into_iter().enumerate() {
            if means_nothing(fault, verb) {
                activation.leaves_out(&name, fault);
                continue;
            }
            let about = (1..=scene.requests).filter(|at| is_about(fault, scene.log[*at as usize - 1].0));
            for at in about.skip((shift + way) % every).step_by(every) {
                let (fired, log) = scene.run(&[(at, fault)]).await;
                activation.met(&name, fault, at, fired, &log);
                runs += 1;
            }
        }
    }
    if every == 1 {
        activation.check(&format!("{format:?} {place:?}"));
    }
    println!("{format:?} {place:?}: {runs} runs with one fault");
}

/// `usual`, or each one by hand.
fn every(usual: usize) -> usize {
    match std::env::var("LAKEHOUSE_FAULTS").as_deref() {
        Ok("all") => 1,
        _ => usual,
    }
}

fn in_memory(format: (TableFormat, Option<u8>), usual: usize) {
    block_on(async {
        each_request_fails_in_turn(Place::in_memory(format).await, format, every(usual)).await;
    });
}

fn on_local_disk(format: (TableFormat, Option<u8>)) {
    block_on(async {
        each_request_fails_in_turn(Place::on_local_disk(format).await, format, every(12)).await;
    });
}

#[test]
fn iceberg_v2_survives_single_faults() {
    // Its requests are those of version 3 but for the files that masks are in.
    in_memory(FORMATS[0], 4);
}

#[test]
fn iceberg_v3_survives_every_single_fault() {
    in_memory(FORMATS[1], 1);
}

#[test]
fn delta_survives_every_single_fault() {
    in_memory(FORMATS[2], 1);
}

/// Files of changed rows are staged as others are, and ids are given in the commit.
#[test]
fn delta_with_a_change_feed_and_row_tracking_survives_single_faults() {
    let on = [
        ("delta.enableChangeDataFeed", "true"),
        ("delta.enableRowTracking", "true"),
    ];
    block_on(async {
        let place = Place::in_memory_with(FORMATS[2], &on).await;
        each_request_fails_in_turn(place, FORMATS[2], every(3)).await;
    });
}

#[test]
fn iceberg_v2_survives_faults_on_local_disk() {
    on_local_disk(FORMATS[0]);
}

#[test]
fn iceberg_v3_survives_faults_on_local_disk() {
    on_local_disk(FORMATS[1]);
}

#[test]
fn delta_survives_faults_on_local_disk() {
    on_local_disk(FORMATS[2]);
}

fn empty() -> Store {
    over(&InMemory::new())
}

/// Creating: afterwards there is no table, or the whole table, and creating again says which.
#[test]
fn creating_a_table_survives_every_single_fault() {
    block_on(async {
        for (format, version) in FORMATS {
            let (store, faults) = faulty(&empty());
            Table::create_in(store, format, &definition(version))
                .await
                .unwrap();
            let mut activation = Activation::default();
            activation.sends("Create", &faults.log());
            for fault in FAULTS {
                for at in 1..=faults.requests() {
                    let healthy = empty();
                    let (store, faults) = faulty(&healthy);
                    faults.fail_at(at, fault);
                    let case = format!("{format} {version:?}: {fault:?} at request {at}");
                    let made = Table::create_in(store, format, &definition(version)).await;
                    activation.met("Create", fault, at, faults.fired(), &faults.log());
                    faults.deliver(&healthy).await;
                    let again = Table::create_in(healthy.clone(), format, &definition(version)).await;
                    match (&made, &again) {
                        (Ok(_), Err(Error::AlreadyExists { .. })) => {}
                        (Err(Error::CommitUnknown { .. }), Ok(_) | Err(Error::AlreadyExists { .. })) => {}
                        (Err(Error::AlreadyExists { .. }), Ok(_)) => {
                            panic!("{case}: \"exists\" was said of a table that does not: {made:?}")
                        }
                        (Err(_), Ok(_)) => {}
                        other => panic!("{case}: {other:?}"),
                    }
                    assert_eq!(content(&healthy).await, Vec::<String>::new(), "{case}");
                }
            }
            activation.check(&format!("{format} {version:?}"));
        }
    });
}
