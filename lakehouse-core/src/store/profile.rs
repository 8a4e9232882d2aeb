//! The profile files of the AWS tools (`~/.aws/credentials`, `~/.aws/config`), as far as they hold keys.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use object_store::aws::AmazonS3ConfigKey as Key;

use crate::error::{Error, Result};

/// One profile, from both files.
#[derive(Default)]
pub(super) struct Profile {
    name: String,
    /// Somebody asked for this profile.
    named: bool,
    values: BTreeMap<String, String>,
}

/// Ways to get credentials that need more than the files.
const INDIRECT: [&str; 5] = [
    "sso_session",
    "sso_start_url",
    "credential_process",
    "role_arn",
    "login_session",
];

impl Profile {
    /// The profile of this name, or the one called `default` if there is one.
    ///
    /// # Errors
    /// When a profile that was asked for is not there, or a file cannot be read.
    pub(super) fn load(named: Option<&str>) -> Result<Option<Self>> {
        let mut profile = Self {
            name: named.unwrap_or("default").to_owned(),
            named: named.is_some(),
            values: BTreeMap::new(),
        };
        let mut found = false;
        for (variable, file) in [
            ("AWS_CONFIG_FILE", ".aws/config"),
            ("AWS_SHARED_CREDENTIALS_FILE", ".aws/credentials"),
        ] {
            let set = std::env::var_os(variable).filter(|place| !place.is_empty());
            let wanted = set.is_some() || profile.named;
            let home = || Some(std::env::home_dir()?.join(file));
            let Some(place) = set.map(PathBuf::from).or_else(home) else {
                continue;
            };
            match read(&place) {
                Ok(Some(text)) => found |= profile.take(&text),
                Ok(None) => {}
                Err(error) if wanted => return Err(error),
                Err(error) => tracing::debug!(%error, "a profile file that nobody asked for is left alone"),
            }
        }
        if !found && profile.named {
            return Err(Error::invalid(
                "there is no such profile in ~/.aws/config and ~/.aws/credentials",
                format!("profile {:?}", profile.name),
            )
            .with_hint("check AWS_PROFILE, or set keys: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"));
        }
        Ok(found.then_some(profile))
    }

    /// Reads the section of this profile: `[name]`, or `[profile name]`.
    fn take(&mut self, text: &str) -> bool {
        let (mut inside, mut found) = (false, false);
        // How far the last setting was indented; what is indented further belongs to it (`s3 =`) and says nothing
        // about keys.
        let mut depth = None;
        for line in text.lines() {
            let indent = line.len() - line.trim_start().len();
            let line = line.trim();
            if line.is_empty() || line.starts_with(['#', ';']) {
                continue;
            }
            if let Some(section) = line.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
                let section = section.trim();
                let name = match section.strip_prefix("profile") {
                    Some(rest) if rest.starts_with(char::is_whitespace) => rest.trim(),
                    _ => section,
                };
                inside = name.trim_matches(['"', '\'']) == self.name;
                found |= inside;
                depth = None;
            } else if depth.is_none_or(|depth| indent <= depth) {
                depth = Some(indent);
                if inside && let Some((name, value)) = line.split_once('=') {
                    self.values
                        .insert(name.trim().to_ascii_lowercase(), value.trim().to_owned());
                }
            }
        }
        found
    }

    /// Its keys.
    ///
    /// # Errors
    /// When it was asked for and has none, but another way to get some that is not known here.
    pub(super) fn credentials(&self) -> Result<Vec<(Key, String)>> {
        let keys: Vec<(Key, String)> = [
            ("aws_access_key_id", Key::AccessKeyId),
            ("aws_secret_access_key", Key::SecretAccessKey),
            ("aws_session_token", Key::Token),
        ]
        .into_iter()
        .filter_map(|(name, key)| Some((key, self.values.get(name)?.clone())))
        .collect();
        let indirect = INDIRECT.iter().find(|name| self.values.contains_key(**name));
        match indirect {
            Some(way) if keys.is_empty() && self.named => Err(Error::unsupported(
                format!(
                    "profile {:?} gets its credentials by {way}, which is not known here",
                    self.name
                ),
                format!(
                    "export them first: eval \"$(aws configure export-credentials --profile {} --format env)\"",
                    self.name
                ),
            )),
            _ => Ok(keys),
        }
    }

    /// Its other settings that matter.
    pub(super) fn settings(&self) -> Vec<(Key, String)> {
        [("region", Key::Region), ("endpoint_url", Key::Endpoint)]
            .into_iter()
            .filter_map(|(name, key)| Some((key, self.values.get(name)?.clone())))
            .collect()
    }
}

fn read(place: &Path) -> Result<Option<String>> {
    match std::fs::read_to_string(place) {
        Ok(text) => Ok(Some(text)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(Error::invalid(error.to_string(), place.display().to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(name: &str, text: &str) -> Option<Profile> {
        let mut profile = Profile {
            name: name.into(),
            named: true,
            ..Profile::default()
        };
        profile.take(text).then_some(profile)
    }

    const FILE: &str = "[default]\naws_access_key_id = A\naws_secret_access_key=B\n# c\n\n[profile work]\n\
                        region = eu-west-1\ns3 =\n  region = nested\n[profile sso]\nsso_session = x\n";

    #[test]
    fn a_profile_is_its_own_section_in_either_spelling() {
        let default = profile("default", FILE).unwrap();
        let keys = default.credentials().unwrap();
        assert_eq!(
            keys,
            [(Key::AccessKeyId, "A".into()), (Key::SecretAccessKey, "B".into())]
        );
        assert!(default.settings().is_empty());
        let work = profile("work", FILE).unwrap();
        assert_eq!(work.settings(), [(Key::Region, "eu-west-1".into())]);
        assert!(profile("other", FILE).is_none());
    }

    #[test]
    fn indented_sections_and_quoted_names_are_read_as_the_tools_of_aws_do() {
        let text = "[default]\n  aws_access_key_id = A\n  aws_secret_access_key = B\n[profilework]\nregion = x\n\
                    [profile \"my own\"]\nregion = y\n";
        assert_eq!(profile("default", text).unwrap().credentials().unwrap().len(), 2);
        assert!(profile("work", text).is_none());
        assert_eq!(
            profile("my own", text).unwrap().settings(),
            [(Key::Region, "y".into())]
        );
    }

    #[test]
    fn a_profile_that_needs_a_login_says_how_to_get_its_keys() {
        let error = profile("sso", FILE).unwrap().credentials().unwrap_err();
        assert!(error.hint().unwrap().contains("--profile sso"), "{error}");
    }
}
