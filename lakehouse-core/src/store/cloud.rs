//! Stores in the cloud: S3 and what speaks like it, Google Cloud Storage, Azure.
//!
//! Settings come from three places, the later ones only where the earlier say nothing: storage options, the
//! environment, the profile files of the AWS tools. Nothing ever comes from a table's metadata.

use std::str::FromStr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{BackoffConfig, ClientConfigKey, ObjectStore, RetryConfig};
use url::{Host, Url};

use super::options::{ALLOW_LINKS, ALLOW_LOCATIONS, StorageOptions, UNSAFE_SINGLE_WRITER};
use super::profile::Profile;
use crate::error::{Error, Result};
use crate::model::limits::Limits;

/// How long the client itself repeats requests that may be repeated without harm.
const PATIENCE: Duration = Duration::from_secs(60);
const RETRIES: usize = 8;

/// Kinds of cloud storage, by the schemes of their URLs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cloud {
    S3,
    Google,
    Azure,
}

/// A table's object store, and the same without the client's own retries.
pub(super) struct Opened {
    /// Repeats requests by itself.
    pub(super) patient: Arc<dyn ObjectStore>,
    /// Sends each request once: a create that the client repeats could not be told from somebody else's.
    pub(super) once: Lazy,
    /// Nobody vouches for its conditional puts.
    pub(super) foreign: bool,
}

/// A store that is built when it is first needed: reading needs none of it.
#[derive(Clone)]
pub(super) struct Lazy(Arc<LazyParts>);

struct LazyParts {
    built: OnceLock<Arc<dyn ObjectStore>>,
    build: Box<dyn Fn() -> Result<Arc<dyn ObjectStore>> + Send + Sync>,
}

impl Lazy {
    fn new(build: impl Fn() -> Result<Arc<dyn ObjectStore>> + Send + Sync + 'static) -> Self {
        Self(Arc::new(LazyParts {
            built: OnceLock::new(),
            build: Box::new(build),
        }))
    }

    pub(super) fn get(&self) -> Result<&Arc<dyn ObjectStore>> {
        if let Some(built) = self.0.built.get() {
            return Ok(built);
        }
        let built = (self.0.build)()?;
        Ok(self.0.built.get_or_init(|| built))
    }
}

impl From<Arc<dyn ObjectStore>> for Lazy {
    fn from(store: Arc<dyn ObjectStore>) -> Self {
        Self::new(move || Ok(Arc::clone(&store)))
    }
}

impl Cloud {
    /// The kind that a URL's scheme names.
    pub(super) fn of(scheme: &str) -> Option<Self> {
        match scheme {
            "s3" | "s3a" | "s3n" => Some(Self::S3),
            "gs" | "gcs" => Some(Self::Google),
            "az" | "azure" | "adl" | "abfs" | "abfss" => Some(Self::Azure),
            _ => None,
        }
    }

    /// The store of the table at `url`.
    ///
    /// # Errors
    /// [`Error::Invalid`] for options that cannot be.
    pub(super) fn open(self, url: &Url, options: &StorageOptions) -> Result<Opened> {
        let retries = RetryConfig {
            max_retries: RETRIES,
            retry_timeout: PATIENCE,
            backoff: BackoffConfig {
                max_backoff: Duration::from_secs(10),
                ..BackoffConfig::default()
            },
        };
        let (patient, foreign) = self.build(url, options, retries)?;
        let (url, options) = (url.clone(), options.clone());
        let once = Lazy::new(move || {
            let no_retries = RetryConfig {
                max_retries: 0,
                retry_timeout: PATIENCE,
                backoff: BackoffConfig::default(),
            };
            Ok(self.build(&url, &options, no_retries)?.0)
        });
        Ok(Opened {
            patient,
            once,
            foreign,
        })
    }

    fn build(
        self,
        url: &Url,
        options: &StorageOptions,
        retry: RetryConfig,
    ) -> Result<(Arc<dyn ObjectStore>, bool)> {
        refuse_locks(options)?;
        let prefix = Path::from_url_path(url.path())
            .map_err(|error| Error::invalid(error.to_string(), format!("location {url}")))?;
        match self {
            Self::S3 => {
                let (builder, foreign) = s3(url, options)?;
                let store = builder.with_retry(retry).build().map_err(|e| failed(url, &e))?;
                Ok((below(store, prefix), foreign))
            }
            Self::Google => {
                let (builder, foreign) = google(url, options)?;
                let store = builder.with_retry(retry).build().map_err(|e| failed(url, &e))?;
                Ok((below(store, prefix), foreign))
            }
            Self::Azure => {
                let (builder, foreign) = azure(url, options)?;
                let store = builder.with_retry(retry).build().map_err(|e| failed(url, &e))?;
                Ok((below(store, prefix), foreign))
            }
        }
    }
}

fn below(store: impl ObjectStore, prefix: Path) -> Arc<dyn ObjectStore> {
    Arc::new(PrefixStore::new(store, prefix))
}

fn s3(url: &Url, options: &StorageOptions) -> Result<(AmazonS3Builder, bool)> {
    use AmazonS3ConfigKey as Key;
    let (mut asked, mut given) = (None, Vec::new());
    for (name, value) in options.iter() {
        match name {
            "aws_profile" | "profile" => asked = Some(value.to_owned()),
            "aws_s3_addressing_style" | "addressing_style" => {
                given.push((Key::VirtualHostedStyleRequest, (value == "virtual").to_string()));
            }
            _ => given.extend(Key::from_str(name).ok().map(|key| (key, value.to_owned()))),
        }
    }
    let has = |settings: &[(Key, String)], key: Key| settings.iter().any(|(set, _)| *set == key);
    // Of two names for one thing, the environment's must not beat the one that was given.
    for (general, special) in [
        (Key::Endpoint, Key::S3Endpoint),
        (Key::DefaultRegion, Key::Region),
    ] {
        let value = given
            .iter()
            .find(|(key, _)| *key == general)
            .map(|(_, value)| value.clone());
        if let Some(value) = value.filter(|_| !has(&given, special)) {
            given.push((special, value));
        }
    }
    // An empty variable is one that is not set.
    let mut environment: Vec<(Key, String)> = std::env::vars()
        .filter(|(name, value)| name.starts_with("AWS_") && !value.is_empty())
        .filter_map(|(name, value)| Some((Key::from_str(&name.to_ascii_lowercase()).ok()?, value)))
        .collect();
    let named = asked.clone().or_else(|| std::env::var("AWS_PROFILE").ok());
    let profile = Profile::load(named.filter(|name| !name.is_empty()).as_deref())?;
    // Credentials come from one place: options, a profile that was asked for, the environment, a profile.
    let has_own = has(&given, Key::AccessKeyId) || truthy(value_of(&given, Key::SkipSignature));
    let has_keys = has(&environment, Key::AccessKeyId)
        || (has(&environment, Key::WebIdentityTokenFile) && has(&environment, Key::RoleArn));
    let of_profile = match &profile {
        Some(profile) if !has_own && (asked.is_some() || !has_keys) => profile.credentials()?,
        _ => Vec::new(),
    };
    if has_own || !of_profile.is_empty() {
        environment.retain(|(key, _)| !matches!(key, Key::AccessKeyId | Key::SecretAccessKey | Key::Token));
    }
    environment.extend(of_profile);
    for (key, value) in profile.iter().flat_map(Profile::settings) {
        let twin = match key {
            Key::Endpoint => Key::S3Endpoint,
            _ => Key::DefaultRegion,
        };
        if !has(&environment, key) && !has(&environment, twin) {
            environment.push((key, value));
        }
    }
    let builder = environment
        .into_iter()
        .chain(given)
        .fold(AmazonS3Builder::new(), |builder, (key, value)| {
            builder.with_config(key, value)
        });
    let endpoint = [Key::S3Endpoint, Key::Endpoint]
        .iter()
        .find_map(|key| builder.get_config_value(key));
    let mut builder = builder.with_bucket_name(bucket(url)?);
    let http = Key::Client(ClientConfigKey::AllowHttp);
    if let Some(endpoint) = &endpoint
        && plain_http(
            endpoint,
            truthy(builder.get_config_value(&http)),
            "aws_allow_http",
        )?
    {
        builder = builder.with_allow_http(true);
    }
    Ok((builder, endpoint.is_some_and(|endpoint| !is_amazon(&endpoint))))
}

fn value_of(settings: &[(AmazonS3ConfigKey, String)], key: AmazonS3ConfigKey) -> Option<String> {
    let found = settings.iter().find(|(set, _)| *set == key);
    found.map(|(_, value)| value.clone())
}

/// A yes, as `object_store` reads one.
fn truthy(value: Option<String>) -> bool {
    let value = value.map(|value| value.to_ascii_lowercase());
    matches!(value.as_deref(), Some("1" | "true" | "on" | "yes" | "y"))
}

fn google(url: &Url, options: &StorageOptions) -> Result<(GoogleCloudStorageBuilder, bool)> {
    use GoogleConfigKey as Key;
    let mut builder = GoogleCloudStorageBuilder::from_env();
    for (name, value) in options.iter() {
        if let Ok(key) = Key::from_str(name) {
            builder = builder.with_config(key, value);
        }
    }
    let endpoint = builder.get_config_value(&Key::BaseUrl);
    if let Some(endpoint) = &endpoint {
        let http = Key::Client(ClientConfigKey::AllowHttp);
        if plain_http(endpoint, truthy(builder.get_config_value(&http)), "allow_http")? {
            builder = builder.with_config(http, "true");
        }
    }
    // A key file may name another server than Google's.
    let key = builder.get_config_value(&Key::ServiceAccountKey).or_else(|| {
        let file = [Key::ServiceAccount, Key::ApplicationCredentials]
            .iter()
            .find_map(|key| builder.get_config_value(key))?;
        std::fs::read_to_string(file).ok()
    });
    let elsewhere = key.is_some_and(|key| key.contains("gcs_base_url"));
    let foreign = elsewhere || endpoint.is_some_and(|endpoint| host(&endpoint) != "storage.googleapis.com");
    Ok((builder.with_bucket_name(bucket(url)?), foreign))
}

fn azure(url: &Url, options: &StorageOptions) -> Result<(MicrosoftAzureBuilder, bool)> {
    use AzureConfigKey as Key;
    let mut builder = MicrosoftAzureBuilder::from_env();
    for (name, value) in options.iter() {
        if let Ok(key) = Key::from_str(name) {
            builder = builder.with_config(key, value);
        }
    }
    let endpoint = builder.get_config_value(&Key::Endpoint);
    if let Some(endpoint) = &endpoint {
        let http = Key::Client(ClientConfigKey::AllowHttp);
        if plain_http(
            endpoint,
            truthy(builder.get_config_value(&http)),
            "azure_allow_http",
        )? {
            builder = builder.with_config(http, "true");
        }
    }
    let emulator = truthy(builder.get_config_value(&Key::UseEmulator));
    let foreign =
        emulator || endpoint.is_some_and(|endpoint| !host(&endpoint).ends_with(".core.windows.net"));
    Ok((builder.with_url(url.as_str()), foreign))
}

fn bucket(url: &Url) -> Result<&str> {
    let bucket = url.host_str().unwrap_or_default();
    if bucket.is_empty() {
        return Err(Error::invalid("the location names no bucket", url.to_string())
            .with_hint(format!("write {}://BUCKET/PATH", url.scheme())));
    }
    Ok(bucket)
}

/// Whether an endpoint is spoken to without encryption; allowed on this machine and where it was asked for.
fn plain_http(endpoint: &str, allowed: bool, option: &str) -> Result<bool> {
    // The endpoint itself is not shown: it may carry a password or a signature.
    let url = Url::parse(endpoint).map_err(|error| {
        Error::invalid(format!("the endpoint is not a URL: {error}"), "storage options")
            .with_hint("write https://HOST or http://HOST:PORT")
    })?;
    // Clients log whom they connect to.
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Error::invalid(
            "the endpoint has a user or a password in it, which no cloud understands",
            "storage options",
        )
        .with_hint("keys are options of their own, such as aws_access_key_id and aws_secret_access_key"));
    }
    if url.scheme() != "http" {
        return Ok(false);
    }
    let here = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    };
    if !here && !allowed {
        let place = format!("endpoint http://{}", url.host_str().unwrap_or_default());
        return Err(
            Error::invalid("the endpoint is not encrypted", place).with_hint(format!(
                "use https://, or allow it: --storage-option {option}=true"
            )),
        );
    }
    Ok(true)
}

fn host(endpoint: &str) -> String {
    let url = Url::parse(endpoint).ok();
    url.and_then(|url| url.host_str().map(str::to_owned))
        .unwrap_or_default()
}

/// Whether an endpoint is S3 itself, not somebody's machine at Amazon's.
fn is_amazon(endpoint: &str) -> bool {
    let host = host(endpoint);
    let Some(labels) = [".amazonaws.com", ".amazonaws.com.cn"]
        .iter()
        .find_map(|domain| host.strip_suffix(domain))
    else {
        return false;
    };
    let mut labels = labels.split('.');
    let customer = |label: &str| matches!(label, "elb" | "execute-api") || label.starts_with("compute");
    !labels.clone().any(customer)
        && labels.any(|label| label == "s3" || label.starts_with("s3-") || label.starts_with("s3express"))
}

/// Options that other tools know and that would not keep their promise here.
const LOCKS: [&str; 3] = [
    "aws_s3_locking_provider",
    "delta_dynamo_table_name",
    "dynamo_table_name",
];

/// That each of these options is one of some kind of storage: jobs give the same ones to tables of several kinds.
///
/// # Errors
/// [`Error::Invalid`] for a name that no kind of storage knows.
pub(super) fn check_names(options: &StorageOptions) -> Result<()> {
    options.iter().try_for_each(|(name, _)| check_name(name))
}

/// # Errors
/// [`Error::Invalid`] for an option that would have a lock guard the table.
fn refuse_locks(options: &StorageOptions) -> Result<()> {
    let Some((name, _)) = options.iter().find(|(name, _)| LOCKS.contains(name)) else {
        return Ok(());
    };
    Err(Error::invalid(
        "a lock table guards a log only if every writer uses it; here commits are conditional writes of the store \
         itself",
        format!("storage option {name}"),
    )
    .with_hint("leave the option out, and let no writer use the lock table on this table any more"))
}

fn check_name(name: &str) -> Result<()> {
    let known = matches!(
        name,
        UNSAFE_SINGLE_WRITER
            | ALLOW_LINKS
            | ALLOW_LOCATIONS
            | "aws_profile"
            | "profile"
            | "aws_s3_addressing_style"
            | "addressing_style"
    ) || LOCKS.contains(&name)
        || name.starts_with(Limits::PREFIX)
        || AmazonS3ConfigKey::from_str(name).is_ok()
        || GoogleConfigKey::from_str(name).is_ok()
        || AzureConfigKey::from_str(name).is_ok();
    if known {
        return Ok(());
    }
    Err(Error::invalid(
        "this storage option is not known",
        format!("storage option {name}"),
    )
    .with_hint(
        "known are names such as aws_region, aws_endpoint_url, aws_access_key_id, google_service_account, \
             azure_storage_account_name, timeout, proxy_url",
    ))
}

fn failed(url: &Url, error: &object_store::Error) -> Error {
    Error::invalid(
        super::failure::scrubbed(&error.to_string()),
        format!("location {url}"),
    )
    .with_hint("storage is set up by --storage-option or the environment: AWS_*, GOOGLE_*, AZURE_*")
}

#[cfg(test)]
mod tests {
    use object_store::signer::Signer;

    use crate::store::Store;

    use super::*;

    #[test]
    fn endpoints_without_encryption_are_refused_but_on_this_machine() {
        assert!(plain_http("http://127.0.0.1:9000", false, "x").unwrap());
        assert!(plain_http("http://localhost:9000", false, "x").unwrap());
        assert!(plain_http("http://[::1]:9000", false, "x").unwrap());
        assert!(!plain_http("https://minio.example", false, "x").unwrap());
        assert!(plain_http("http://minio.example", true, "x").unwrap());
        let error = plain_http("http://minio.example", false, "aws_allow_http").unwrap_err();
        assert!(error.hint().unwrap().contains("aws_allow_http=true"), "{error}");
    }

    #[tokio::test]
    async fn the_bucket_is_in_the_path_or_in_the_host_as_asked() {
        let amazons = "https://s3.eu-west-1.amazonaws.com/lake/t/x?";
        let in_host = "https://lake.s3.eu-west-1.amazonaws.com/t/x?";
        let (here, own) = ("http://127.0.0.1:9000", "https://lake.minio.example");
        let virtually = ("aws_s3_addressing_style", "virtual");
        for (asked, start) in [
            (vec![], amazons),
            (vec![("aws_s3_addressing_style", "path")], amazons),
            (vec![virtually], in_host),
            (vec![("aws_virtual_hosted_style_request", "true")], in_host),
            (
                vec![("aws_endpoint_url", here)],
                "http://127.0.0.1:9000/lake/t/x?",
            ),
            (
                vec![("aws_endpoint_url", own), virtually],
                "https://lake.minio.example/t/x?",
            ),
        ] {
            let keys = [
                ("aws_access_key_id", "key"),
                ("aws_secret_access_key", "secret"),
                ("aws_region", "eu-west-1"),
            ];
            let options: StorageOptions = keys.into_iter().chain(asked.clone()).collect();
            let (builder, _) = s3(&"s3://lake/t".parse().unwrap(), &options).unwrap();
            let store = builder.build().unwrap();
            let (key, soon) = (Path::from("t/x"), Duration::from_secs(60));
            let signed = store.signed_url("GET".parse().unwrap(), &key, soon);
            let signed = signed.await.unwrap();
            assert!(
                signed.as_str().starts_with(start),
                "{asked:?}: {}",
                signed.origin().ascii_serialization()
            );
        }
    }

    #[test]
    fn only_s3_itself_is_known_not_whatever_runs_at_amazons() {
        for known in [
            "https://s3.eu-west-1.amazonaws.com",
            "https://bucket.s3.eu-west-1.amazonaws.com",
            "https://s3-fips.us-east-1.amazonaws.com",
            "https://vpce-1-2.s3.us-east-1.vpce.amazonaws.com",
            "https://s3.cn-north-1.amazonaws.com.cn",
        ] {
            assert!(is_amazon(known), "{known}");
        }
        for foreign in [
            "https://ec2-3-4-5-6.compute-1.amazonaws.com",
            "https://s3.elb.eu-west-1.amazonaws.com",
            "https://x.execute-api.eu-west-1.amazonaws.com",
            "https://s3.amazonaws.com.evil.example",
            "https://notamazonaws.com",
            "http://127.0.0.1:9000",
        ] {
            assert!(!is_amazon(foreign), "{foreign}");
        }
    }

    #[test]
    fn an_endpoint_that_cannot_be_is_not_repeated() {
        for (endpoint, allowed) in [
            ("http://user:hush@minio.example", true),
            ("https://hush@minio.example", true),
            ("minio/?sig=hush", true),
        ] {
            let error = plain_http(endpoint, allowed, "x").unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hush"), "{error}");
        }
    }

    #[test]
    fn options_nobody_knows_are_refused_by_name() {
        for known in [
            "aws_region",
            "region",
            "google_service_account",
            "timeout",
            "azure_storage_account_name",
        ] {
            check_name(known).unwrap();
        }
        for location in ["s3://bucket/t", "memory://options", "some/folder"] {
            let misspelt = [("aws_regoin", "eu-west-1")].into_iter().collect();
            let error = Store::open_with(location, &misspelt).unwrap_err().to_string();
            assert!(error.contains("aws_regoin"), "{location}: {error}");
        }
        let locked = [("aws_s3_locking_provider", "dynamodb")].into_iter().collect();
        let error = Store::open_with("s3://bucket/t", &locked)
            .unwrap_err()
            .to_string();
        assert!(error.contains("lock table"), "{error}");
        // Nobody takes it for a guard there.
        Store::open_with("memory://locked", &locked).unwrap();
    }
}
