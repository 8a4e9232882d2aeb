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

use super::options::{StorageOptions, UNSAFE_SINGLE_WRITER};
use super::profile::Profile;
use crate::error::{Error, Result};

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
    /// [`Error::Invalid`] for options that are not known or cannot be.
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
        for (name, _) in options.iter() {
            check_name(name)?;
        }
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
    let mut builder = AmazonS3Builder::from_env();
    let mut named = std::env::var("AWS_PROFILE").ok();
    for (name, value) in options.iter() {
        match name {
            "aws_profile" | "profile" => named = Some(value.to_owned()),
            "aws_s3_addressing_style" | "addressing_style" => {
                let hosted = (value == "virtual").to_string();
                builder = builder.with_config(Key::VirtualHostedStyleRequest, hosted);
            }
            _ => {
                if let Ok(key) = Key::from_str(name) {
                    builder = builder.with_config(key, value);
                }
            }
        }
    }
    let set = |builder: &AmazonS3Builder, key: &Key| builder.get_config_value(key).is_some();
    let keyless = [
        Key::AccessKeyId,
        Key::WebIdentityTokenFile,
        Key::ContainerCredentialsRelativeUri,
        Key::ContainerCredentialsFullUri,
    ]
    .iter()
    .all(|key| !set(&builder, key));
    let unsigned = builder.get_config_value(&Key::SkipSignature).as_deref() == Some("true");
    let profile = Profile::load(named.as_deref())?;
    if let Some(profile) = profile {
        if keyless && !unsigned {
            for (key, value) in profile.credentials()? {
                builder = builder.with_config(key, value);
            }
        }
        for (key, value) in profile.settings() {
            if !set(&builder, &key) {
                builder = builder.with_config(key, value);
            }
        }
    }
    if !set(&builder, &Key::Region)
        && let Some(region) = builder.get_config_value(&Key::DefaultRegion)
    {
        builder = builder.with_config(Key::Region, region);
    }
    let endpoint = [Key::S3Endpoint, Key::Endpoint]
        .iter()
        .find_map(|key| builder.get_config_value(key));
    let http = Key::Client(ClientConfigKey::AllowHttp);
    if let Some(endpoint) = &endpoint {
        let allowed = builder.get_config_value(&http).as_deref() == Some("true");
        if plain_http(endpoint, allowed, "aws_allow_http")? {
            builder = builder.with_allow_http(true);
        }
    }
    Ok((
        builder.with_bucket_name(bucket(url)?),
        is_foreign(endpoint.as_deref(), "amazonaws.com"),
    ))
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
        let allowed = builder.get_config_value(&http).as_deref() == Some("true");
        if plain_http(endpoint, allowed, "allow_http")? {
            builder = builder.with_config(http, "true");
        }
    }
    Ok((
        builder.with_bucket_name(bucket(url)?),
        is_foreign(endpoint.as_deref(), "googleapis.com"),
    ))
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
        let allowed = builder.get_config_value(&http).as_deref() == Some("true");
        if plain_http(endpoint, allowed, "azure_allow_http")? {
            builder = builder.with_config(http, "true");
        }
    }
    let emulator = builder.get_config_value(&Key::UseEmulator).as_deref() == Some("true");
    let foreign = emulator || is_foreign(endpoint.as_deref(), "windows.net");
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
    let url = Url::parse(endpoint)
        .map_err(|error| Error::invalid(error.to_string(), format!("endpoint {endpoint:?}")))?;
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
        return Err(
            Error::invalid("the endpoint is not encrypted", format!("endpoint {endpoint:?}")).with_hint(
                format!("use https://, or allow it: --storage-option {option}=true"),
            ),
        );
    }
    Ok(true)
}

/// Whether an endpoint belongs to somebody else than the cloud's own company.
fn is_foreign(endpoint: Option<&str>, domain: &str) -> bool {
    let Some(endpoint) = endpoint else { return false };
    let host = Url::parse(endpoint)
        .ok()
        .and_then(|url| url.host_str().map(str::to_owned));
    !host.is_some_and(|host| host == domain || host.ends_with(&format!(".{domain}")))
}

/// Options that other tools know and that would not keep their promise here.
const LOCKS: [&str; 3] = [
    "aws_s3_locking_provider",
    "delta_dynamo_table_name",
    "dynamo_table_name",
];

/// # Errors
/// [`Error::Invalid`] for a name that no kind of storage knows.
fn check_name(name: &str) -> Result<()> {
    if LOCKS.contains(&name) {
        return Err(Error::invalid(
            "a lock table guards a log only if every writer uses it; here commits are conditional writes of the \
             store itself",
            format!("storage option {name}"),
        )
        .with_hint("leave the option out, and let no writer use the lock table on this table any more"));
    }
    let known = matches!(
        name,
        UNSAFE_SINGLE_WRITER | "aws_profile" | "profile" | "aws_s3_addressing_style" | "addressing_style"
    ) || AmazonS3ConfigKey::from_str(name).is_ok()
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

    #[test]
    fn stores_of_the_clouds_themselves_are_known() {
        assert!(!is_foreign(None, "amazonaws.com"));
        assert!(!is_foreign(
            Some("https://s3.eu-west-1.amazonaws.com"),
            "amazonaws.com"
        ));
        assert!(is_foreign(
            Some("https://amazonaws.com.evil.example"),
            "amazonaws.com"
        ));
        assert!(is_foreign(Some("https://notamazonaws.com"), "amazonaws.com"));
        assert!(is_foreign(Some("http://127.0.0.1:9000"), "amazonaws.com"));
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
        let error = check_name("aws_regoin").unwrap_err().to_string();
        assert!(error.contains("aws_regoin"), "{error}");
        let error = check_name("aws_s3_locking_provider").unwrap_err().to_string();
        assert!(error.contains("lock table"), "{error}");
    }
}
