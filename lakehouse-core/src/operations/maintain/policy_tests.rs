use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;

use super::*;

fn refused(text: &str) -> (String, String) {
    let error = Policy::from_toml(text, "nightly.toml").expect_err(text);
    let hint = error.hint().unwrap_or_default().to_owned();
    (error.to_string(), hint)
}

#[test]
fn a_policy_that_is_printed_is_read_as_the_same_one() {
    let usual = Policy::default();
    assert_eq!(Policy::from_toml(&usual.to_toml(), "usual").unwrap(), usual);
    assert_eq!(Policy::from_toml("", "empty").unwrap(), usual);
    for seed in 0..200 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut policy = Policy::default();
        let some = |random: &mut StdRng| random.random_bool(0.5);
        let bytes = |random: &mut StdRng| {
            let shift = random.random_range(0..40);
            random
                .random_bool(0.5)
                .then(|| Bytes(random.random_range(1..9) << shift))
        };
        let time = |random: &mut StdRng| {
            let days = random.random_range(2..40);
            random
                .random_bool(0.5)
                .then(|| Time(Duration::from_secs(86_400 * days)))
        };
        policy.max_time = time(&mut random);
        policy.max_bytes = bytes(&mut random);
        policy.compact.enabled = some(&mut random);
        policy.compact.target_file_size = bytes(&mut random);
        policy.compact.predicate = some(&mut random).then(|| "name = 'a \"b\" \\ c'".to_owned());
        policy.compact.strategy = CompactStrategy::MaskedFiles;
        policy.compact.min_input_files = some(&mut random).then_some(7);
        policy.compact.delete_ratio_threshold = some(&mut random).then_some(0.25);
        if some(&mut random) {
            policy.compact.zorder = vec!["a".to_owned(), "b.c".to_owned()];
        }
        policy.checkpoint.enabled = some(&mut random);
        policy.expire.older_than = time(&mut random);
        policy.expire.retain_last = some(&mut random).then_some(3);
        policy.vacuum.older_than = time(&mut random);
        policy.vacuum.quarantine = some(&mut random).then(|| ".quarantine".to_owned());
        policy.vacuum.keep_versions = if some(&mut random) { vec![1, 2] } else { Vec::new() };
        let text = policy.to_toml();
        assert_eq!(Policy::from_toml(&text, "random").unwrap(), policy, "{text}");
    }
}

#[test]
fn every_key_is_printed_with_an_example_that_can_be_read() {
    let values = serde_json::to_value(Policy::default()).unwrap();
    let mut keys: Vec<(String, String)> = Vec::new();
    for (name, value) in values.as_object().unwrap() {
        match value.as_object() {
            Some(section) => keys.extend(section.keys().map(|key| (name.clone(), key.clone()))),
            None => keys.push((String::new(), name.clone())),
        }
    }
    let mut told: Vec<(String, String)> = KEYS
        .iter()
        .map(|(section, key, ..)| ((*section).to_owned(), (*key).to_owned()))
        .collect();
    keys.sort();
    told.sort();
    assert_eq!(told, keys);
    for (section, key, example, _) in KEYS {
        let section = match *section {
            "" => String::new(),
            section => format!("[{section}]\n"),
        };
        Policy::from_toml(&format!("{section}{key} = {example}\n"), "example").unwrap();
    }
}

#[test]
fn what_cannot_be_read_is_told_with_its_line_its_key_and_the_name_that_was_meant() {
    for (text, wanted, hint) in [
        (
            "[expire]\nolder-thn = \"7d\"\n",
            "there is no key older-thn (in nightly.toml, line 2, key expire.older-thn)",
            "did you mean older-than?",
        ),
        (
            "max-tme = \"2h\"\n",
            "there is no key max-tme (in nightly.toml, line 1, key max-tme)",
            "did you mean max-time?",
        ),
        (
            "[vacum]\nolder-than = \"7d\"\n",
            "there is no key vacum (in nightly.toml, line 1, key vacum)",
            "did you mean vacuum?",
        ),
        (
            "\n\n[compact]\n# small\ntarget-file-size = \"128 parsec\"\n",
            "\"128 parsec\" is not a size; write it like \"128MB\" (in nightly.toml, line 5, key compact.target-file-size)",
            "--print-policy",
        ),
        (
            "[vacuum]\nolder-than = 7\n",
            "line 2, key vacuum.older-than",
            "--print-policy",
        ),
        (
            "[compact]\nenabled = \"no\"\n",
            "line 2, key compact.enabled",
            "--print-policy",
        ),
        (
            "[compact]\nstrategy = \"smal-files\"\n",
            "there is no value smal-files (in nightly.toml, line 2, key compact.strategy)",
            "did you mean small-files?",
        ),
        ("[compact\n", "nightly.toml, line 1", "--print-policy"),
        (
            "[expire]\nretain-last = -1\n",
            "line 2, key expire.retain-last",
            "--print-policy",
        ),
    ] {
        let (said, advice) = refused(text);
        assert!(said.contains(wanted), "{text}: {said}");
        assert!(advice.contains(hint), "{text}: {advice}");
    }
}

#[test]
fn no_policy_goes_below_what_is_safe() {
    for (text, wanted) in [
        (
            "[expire]\nenabled = true\nolder-than = \"47h\"\n",
            "nightly.toml, line 3, key expire.older-than",
        ),
        (
            "[vacuum]\nolder-than = \"47h\"\n",
            "nightly.toml, line 2, key vacuum.older-than",
        ),
        (
            "[expire]\nretain-last = 0\n",
            "nightly.toml, line 2, key expire.retain-last",
        ),
        (
            "[compact]\nmin-input-files = 1\n",
            "nightly.toml, line 2, key compact.min-input-files",
        ),
        (
            "[compact]\nsort-by = \"a\"\nunordered = true\n",
            "nightly.toml, line 2, key compact.sort-by",
        ),
        (
            "[compact]\ndelete-ratio-threshold = 2.0\n",
            "nightly.toml, line 2, key compact.delete-ratio-threshold",
        ),
    ] {
        let (said, _) = refused(text);
        assert!(said.contains(wanted), "{text}: {said}");
    }
    let forced = "[vacuum]\nolder-than = \"1h\"\nunsafe-no-writers = true\n";
    assert!(Policy::from_toml(forced, "forced").is_ok());
}

#[test]
fn a_dictionary_is_a_policy_like_a_file() {
    let given = json!({
        "max-time": "2h", "compact": {"target-file-size": 134_217_728, "zorder": ["a"], "where": null},
        "expire": {"retain-last": 3},
    });
    let file = "max-time = \"2h\"\n[compact]\ntarget-file-size = \"128MB\"\nzorder = [\"a\"]\n[expire]\nretain-last = 3\n";
    assert_eq!(
        Policy::from_json(&given).unwrap(),
        Policy::from_toml(file, "file").unwrap()
    );
    let error = Policy::from_json(&json!({"expire": {"older than": "7d"}})).unwrap_err();
    assert!(
        error.to_string().contains("there is no key older than"),
        "{error}"
    );
    assert!(Policy::from_json(&json!(["expire"])).is_err());
}
