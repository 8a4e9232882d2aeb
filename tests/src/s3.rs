//! An S3 server over HTTP: objects in memory, conditional writes that are atomic, signatures that are checked
//! (SigV4, by `s3s`), uploads in parts, listings in pages; and faults on the wire. [`Lax`] turns the atomicity off, for
//! what a client must notice about a server.
//!
//! It also serves Google's XML interface, which differs from S3, as far as `object_store` speaks it, only in the header
//! of the condition (`x-goog-if-generation-match: 0`), and without signatures: no server was found that honours it.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use hyper::header::{AUTHORIZATION, HeaderValue, IF_NONE_MATCH};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use lakehouse_core::store::clock::now_ms;
use percent_encoding::percent_decode_str;
use s3s::auth::SimpleAuth;
use s3s::dto::*;
use s3s::service::S3ServiceBuilder;
use s3s::{Body, S3, S3Request, S3Response, S3Result, s3_error};
use tokio::net::TcpListener;

/// The only user.
pub const ACCESS_KEY: &str = "lake-test-user";
/// The user's secret.
pub const SECRET_KEY: &str = "lake-test-secret";

/// Keys in one page of a listing: few, so that pages are turned.
const PAGE: usize = 100;

/// How a server may be less than S3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Lax {
    /// It is not.
    #[default]
    Not,
    /// It takes the condition of a put and ignores it.
    IgnoresConditions,
    /// It does not know conditional puts: 501.
    RefusesConditions,
    /// To it a name is taken even when its object was deleted.
    RemembersNames,
}

/// Whose clients a server understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cloud {
    /// Amazon's.
    S3,
    /// Google's.
    Google,
}

/// What happens to a request on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// It is carried out, and the connection is cut before the answer.
    CutAfter,
    /// The connection is cut, and nothing is done.
    CutBefore,
    /// It is answered with this status, and nothing is done (500, 503 Slow Down, 409 ..).
    Status(u16),
    /// It is carried out, and then answered with this status.
    StatusAfter(u16),
    /// The answer comes a piece at a time, with pauses.
    Slow,
}

#[derive(Debug, Clone)]
struct Object {
    bytes: Bytes,
    tag: String,
    modified: SystemTime,
}

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<(String, String), Object>,
    /// Of all objects that there ever were.
    names: BTreeSet<(String, String)>,
    uploads: BTreeMap<String, BTreeMap<i32, Bytes>>,
    count: u64,
    /// Faults: method, part of the path, how often still, what.
    faults: Vec<(Method, String, u32, Wire)>,
    log: Vec<String>,
}

/// A server at work; it ends with the runtime it was started on.
#[derive(Debug, Clone)]
pub struct Server {
    cloud: Cloud,
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl Server {
    /// Starts a server on a free port of this machine.
    ///
    /// # Errors
    /// When there is no port.
    pub async fn start(cloud: Cloud, lax: Lax) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let server = Self {
            cloud,
            address: listener.local_addr()?,
            state: Arc::default(),
        };
        let mut builder = S3ServiceBuilder::new(Memory {
            state: Arc::clone(&server.state),
            lax,
        });
        if cloud == Cloud::S3 {
            builder.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        }
        let service = builder.build();
        let state = Arc::clone(&server.state);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (service, state) = (service.clone(), Arc::clone(&state));
                tokio::spawn(async move {
                    let answer =
                        hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
                            let (service, state) = (service.clone(), Arc::clone(&state));
                            async move { through(cloud, &state, &service, request).await }
                        });
                    let connection = Builder::new(TokioExecutor::new());
                    // A connection that was cut is what the test wanted.
                    drop(connection.serve_connection(TokioIo::new(socket), answer).await);
                });
            }
        });
        Ok(server)
    }

    /// Where it listens.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The URL of a place in the only bucket.
    pub fn url(&self, place: &str) -> String {
        match self.cloud {
            Cloud::S3 => format!("s3://lake/{place}"),
            Cloud::Google => format!("gs://lake/{place}"),
        }
    }

    /// Storage options with which such URLs lead to this server.
    pub fn options(&self) -> Vec<(String, String)> {
        let endpoint = self.endpoint();
        // What emulators of Google's are reached by. Writes of object_store 0.13 ask for a token in spite of
        // `google_skip_signature`.
        let key = format!(
            r#"{{"gcs_base_url": "{endpoint}", "disable_oauth": true, "client_email": "", "private_key": "",
                "private_key_id": ""}}"#
        );
        let options = match self.cloud {
            Cloud::S3 => vec![
                ("aws_endpoint_url", endpoint.as_str()),
                ("aws_access_key_id", ACCESS_KEY),
                ("aws_secret_access_key", SECRET_KEY),
                ("aws_region", "us-east-1"),
            ],
            Cloud::Google => vec![
                ("google_base_url", endpoint.as_str()),
                ("google_service_account_key", key.as_str()),
            ],
        };
        let owned = options
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()));
        owned.collect()
    }

    /// The next `times` requests of this method whose path contains `part` meet a fault.
    pub fn fault(&self, method: &str, part: &str, times: u32, wire: Wire) {
        let method = method.parse().unwrap_or(Method::GET);
        self.state().faults.push((method, part.to_owned(), times, wire));
    }

    /// Forgets the faults; returns how many met no request.
    pub fn heal(&self) -> u32 {
        let faults = std::mem::take(&mut self.state().faults);
        faults.iter().map(|(_, _, times, _)| times).sum()
    }

    /// Method and path of the requests since the last call.
    pub fn take_log(&self) -> Vec<String> {
        std::mem::take(&mut self.state().log)
    }

    /// Uploads in parts that were begun and neither completed nor given up: their parts are paid for.
    pub fn uploads(&self) -> usize {
        self.state().uploads.len()
    }

    /// Keys of all objects.
    pub fn keys(&self) -> Vec<String> {
        self.state().objects.keys().map(|(_, key)| key.clone()).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        locked(&self.state)
    }
}

fn locked(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One request, through the faults.
async fn through(
    cloud: Cloud,
    state: &Mutex<State>,
    service: &s3s::service::S3Service,
    mut request: Request<hyper::body::Incoming>,
) -> io::Result<Response<Body>> {
    if cloud == Cloud::Google {
        let headers = request.headers_mut();
        headers.remove(AUTHORIZATION);
        if headers
            .remove("x-goog-if-generation-match")
            .is_some_and(|generation| generation == "0")
        {
            headers.insert(IF_NONE_MATCH, HeaderValue::from_static("*"));
        }
    }
    let wire = {
        let mut state = locked(state);
        let method = request.method().clone();
        let path = percent_decode_str(request.uri().path())
            .decode_utf8_lossy()
            .into_owned();
        state.log.push(format!("{method} {}", request.uri()));
        let due = state
            .faults
            .iter_mut()
            .find(|(of, part, times, _)| *times > 0 && *of == method && path.contains(part.as_str()));
        due.map(|(_, _, times, wire)| {
            *times -= 1;
            *wire
        })
    };
    let cut = || Err(io::Error::from(io::ErrorKind::ConnectionAborted));
    let answered = |status: u16| {
        let mut response = Response::new(Body::from("<Error><Code>Injected</Code></Error>".to_owned()));
        *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Ok(response)
    };
    match wire {
        Some(Wire::CutBefore) => return cut(),
        Some(Wire::Status(status)) => return answered(status),
        _ => {}
    }
    let response = service
        .call(request.map(Body::from))
        .await
        .map_err(io::Error::other)?;
    match wire {
        Some(Wire::CutAfter) => cut(),
        Some(Wire::StatusAfter(status)) => answered(status),
        Some(Wire::Slow) => {
            let (head, body) = response.into_parts();
            let bytes = collect(StreamingBlob::from(body))
                .await
                .map_err(|e| io::Error::other(e.to_string()))?;
            let pieces: Vec<Bytes> = bytes
                .chunks(bytes.len() / 4 + 1)
                .map(Bytes::copy_from_slice)
                .collect();
            let slowly = futures::stream::iter(pieces).then(|piece| async move {
                tokio::time::sleep(Duration::from_millis(20)).await;
                Ok::<_, Infallible>(piece)
            });
            Ok(Response::from_parts(
                head,
                Body::from(StreamingBlob::wrap(slowly)),
            ))
        }
        _ => Ok(response),
    }
}

/// The objects.
struct Memory {
    state: Arc<Mutex<State>>,
    lax: Lax,
}

async fn collect(body: StreamingBlob) -> S3Result<Bytes> {
    let pieces: Vec<Bytes> = body
        .try_collect()
        .await
        .map_err(|error| s3_error!(IncompleteBody, "{error}"))?;
    Ok(pieces.concat().into())
}

fn missing() -> s3s::S3Error {
    s3_error!(NoSuchKey, "there is no such object")
}

impl Memory {
    fn find(&self, bucket: &str, key: &str) -> S3Result<Object> {
        let state = locked(&self.state);
        let found = state.objects.get(&(bucket.to_owned(), key.to_owned()));
        found.cloned().ok_or_else(missing)
    }

    /// Stores an object if its condition holds, in one step.
    fn store(
        &self,
        bucket: String,
        key: String,
        bytes: Bytes,
        if_absent: bool,
        if_match: Option<String>,
    ) -> S3Result<ETag> {
        let mut state = locked(&self.state);
        let conditional = if_absent || if_match.is_some();
        if conditional && self.lax == Lax::RefusesConditions {
            return Err(s3_error!(NotImplemented, "conditions are not known here"));
        }
        let there = state.objects.get(&(bucket.clone(), key.clone()));
        if conditional && self.lax != Lax::IgnoresConditions {
            let holds = match (&if_match, there) {
                (Some(tag), Some(there)) => *tag == there.tag,
                (Some(_), None) => return Err(missing()),
                (None, None) if self.lax == Lax::RemembersNames => {
                    !state.names.contains(&(bucket.clone(), key.clone()))
                }
                (None, there) => there.is_none(),
            };
            if !holds {
                return Err(s3_error!(PreconditionFailed, "the condition does not hold"));
            }
        }
        state.count += 1;
        let tag = format!("{:032x}", state.count);
        let object = Object {
            bytes,
            tag: tag.clone(),
            modified: UNIX_EPOCH + Duration::from_millis(now_ms().unsigned_abs()),
        };
        state.names.insert((bucket.clone(), key.clone()));
        state.objects.insert((bucket, key), object);
        Ok(ETag::Strong(tag))
    }
}

fn tag_of(condition: Option<&ETagCondition>) -> Option<String> {
    condition?.as_etag().map(|tag| tag.value().to_owned())
}

#[async_trait]
impl S3 for Memory {
    async fn get_object(&self, request: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let input = request.input;
        let object = self.find(&input.bucket, &input.key)?;
        let all = object.bytes.len() as u64;
        let range = match &input.range {
            Some(range) => range.check(all)?,
            None => 0..all,
        };
        let bytes = object.bytes.slice(range.start as usize..range.end as usize);
        let content_range = input
            .range
            .map(|_| format!("bytes {}-{}/{all}", range.start, range.end.saturating_sub(1)));
        Ok(S3Response::new(GetObjectOutput {
            content_length: Some(bytes.len() as i64),
            content_range,
            e_tag: Some(ETag::Strong(object.tag)),
            last_modified: Some(object.modified.into()),
            body: Some(StreamingBlob::wrap(futures::stream::once(async move {
                Ok::<_, Infallible>(bytes)
            }))),
            ..GetObjectOutput::default()
        }))
    }

    async fn head_object(
        &self,
        request: S3Request<HeadObjectInput>,
    ) -> S3Result<S3Response<HeadObjectOutput>> {
        let object = self.find(&request.input.bucket, &request.input.key)?;
        Ok(S3Response::new(HeadObjectOutput {
            content_length: Some(object.bytes.len() as i64),
            e_tag: Some(ETag::Strong(object.tag)),
            last_modified: Some(object.modified.into()),
            ..HeadObjectOutput::default()
        }))
    }

    async fn put_object(&self, request: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let input = request.input;
        let bytes = match input.body {
            Some(body) => collect(body).await?,
            None => Bytes::new(),
        };
        let tag = self.store(
            input.bucket,
            input.key,
            bytes,
            input.if_none_match.is_some(),
            tag_of(input.if_match.as_ref()),
        )?;
        Ok(S3Response::new(PutObjectOutput {
            e_tag: Some(tag),
            ..PutObjectOutput::default()
        }))
    }

    async fn copy_object(
        &self,
        request: S3Request<CopyObjectInput>,
    ) -> S3Result<S3Response<CopyObjectOutput>> {
        let input = request.input;
        let CopySource::Bucket { bucket, key, .. } = input.copy_source else {
            return Err(s3_error!(NotImplemented, "copies are of objects in buckets"));
        };
        let bytes = self.find(&bucket, &key)?.bytes;
        let tag = self.store(input.bucket, input.key, bytes, false, None)?;
        Ok(S3Response::new(CopyObjectOutput {
            copy_object_result: Some(CopyObjectResult {
                e_tag: Some(tag),
                ..CopyObjectResult::default()
            }),
            ..CopyObjectOutput::default()
        }))
    }

    async fn delete_object(
        &self,
        request: S3Request<DeleteObjectInput>,
    ) -> S3Result<S3Response<DeleteObjectOutput>> {
        let input = request.input;
        locked(&self.state).objects.remove(&(input.bucket, input.key));
        Ok(S3Response::new(DeleteObjectOutput::default()))
    }

    async fn delete_objects(
        &self,
        request: S3Request<DeleteObjectsInput>,
    ) -> S3Result<S3Response<DeleteObjectsOutput>> {
        let input = request.input;
        let mut deleted = Vec::new();
        for object in input.delete.objects {
            let key = (input.bucket.clone(), object.key.clone());
            locked(&self.state).objects.remove(&key);
            deleted.push(DeletedObject {
                key: Some(object.key),
                ..DeletedObject::default()
            });
        }
        Ok(S3Response::new(DeleteObjectsOutput {
            deleted: Some(deleted),
            ..DeleteObjectsOutput::default()
        }))
    }

    async fn list_objects_v2(
        &self,
        request: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let input = request.input;
        let prefix = input.prefix.unwrap_or_default();
        let after = input.continuation_token.or(input.start_after).unwrap_or_default();
        let from = Bound::Excluded((input.bucket.clone(), after.clone()));
        let (mut contents, mut folders, mut last) = (Vec::new(), Vec::<CommonPrefix>::new(), None);
        let state = locked(&self.state);
        let mut truncated = false;
        for ((bucket, key), object) in state.objects.range((from, Bound::Unbounded)) {
            if *bucket != input.bucket {
                break;
            }
            let Some(rest) = key.strip_prefix(prefix.as_str()) else {
                continue;
            };
            let folder = input.delimiter.as_deref().and_then(|mark| {
                let end = rest.find(mark)? + mark.len();
                Some(format!("{prefix}{}", &rest[..end]))
            });
            let known = folders.last().and_then(|folder| folder.prefix.as_deref());
            if folder.is_some() && (known == folder.as_deref() || folder.as_deref() <= Some(after.as_str())) {
                continue;
            }
            if contents.len() + folders.len() == PAGE {
                truncated = true;
                break;
            }
            last = Some(folder.clone().unwrap_or_else(|| key.clone()));
            match folder {
                Some(prefix) => folders.push(CommonPrefix { prefix: Some(prefix) }),
                None => contents.push(s3s::dto::Object {
                    key: Some(key.clone()),
                    size: Some(object.bytes.len() as i64),
                    e_tag: Some(ETag::Strong(object.tag.clone())),
                    last_modified: Some(object.modified.into()),
                    ..s3s::dto::Object::default()
                }),
            }
        }
        Ok(S3Response::new(ListObjectsV2Output {
            name: Some(input.bucket),
            key_count: Some((contents.len() + folders.len()) as i32),
            contents: Some(contents),
            common_prefixes: Some(folders),
            is_truncated: Some(truncated),
            next_continuation_token: last.filter(|_| truncated),
            prefix: Some(prefix),
            ..ListObjectsV2Output::default()
        }))
    }

    async fn create_multipart_upload(
        &self,
        request: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        let mut state = locked(&self.state);
        state.count += 1;
        let id = format!("upload-{}", state.count);
        state.uploads.insert(id.clone(), BTreeMap::new());
        Ok(S3Response::new(CreateMultipartUploadOutput {
            bucket: Some(request.input.bucket),
            key: Some(request.input.key),
            upload_id: Some(id),
            ..CreateMultipartUploadOutput::default()
        }))
    }

    async fn upload_part(
        &self,
        request: S3Request<UploadPartInput>,
    ) -> S3Result<S3Response<UploadPartOutput>> {
        let input = request.input;
        let bytes = match input.body {
            Some(body) => collect(body).await?,
            None => Bytes::new(),
        };
        let mut state = locked(&self.state);
        let Some(parts) = state.uploads.get_mut(&input.upload_id) else {
            return Err(s3_error!(NoSuchUpload));
        };
        parts.insert(input.part_number, bytes);
        Ok(S3Response::new(UploadPartOutput {
            e_tag: Some(ETag::Strong(format!("part-{}", input.part_number))),
            ..UploadPartOutput::default()
        }))
    }

    async fn complete_multipart_upload(
        &self,
        request: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        let input = request.input;
        let bytes = {
            let mut state = locked(&self.state);
            let Some(uploaded) = state.uploads.remove(&input.upload_id) else {
                return Err(s3_error!(NoSuchUpload));
            };
            let wanted = input
                .multipart_upload
                .and_then(|upload| upload.parts)
                .unwrap_or_default();
            let mut bytes = Vec::new();
            for part in wanted {
                let found = part.part_number.and_then(|number| uploaded.get(&number));
                bytes.extend_from_slice(found.ok_or_else(|| s3_error!(InvalidPart))?);
            }
            Bytes::from(bytes)
        };
        let tag = self.store(
            input.bucket.clone(),
            input.key.clone(),
            bytes,
            input.if_none_match.is_some(),
            tag_of(input.if_match.as_ref()),
        )?;
        Ok(S3Response::new(CompleteMultipartUploadOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            e_tag: Some(tag),
            ..CompleteMultipartUploadOutput::default()
        }))
    }

    async fn abort_multipart_upload(
        &self,
        request: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        locked(&self.state).uploads.remove(&request.input.upload_id);
        Ok(S3Response::new(AbortMultipartUploadOutput::default()))
    }
}
