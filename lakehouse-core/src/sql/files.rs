//! Plain files in FROM: Parquet, CSV, NDJSON and Arrow on this machine.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::datasource::file_format::file_compression_type::FileCompressionType;
use datafusion::execution::options::ArrowReadOptions;
use datafusion::prelude::{CsvReadOptions, JsonReadOptions, ParquetReadOptions, SessionContext};

use crate::error::{Error, Result};
use crate::model::limits::PARQUET_FOOTER_BYTES;
use crate::model::{PARQUET_TAIL, check_parquet_footer, parquet_footer_length};

/// Whether there is a file of this name.
pub(super) fn is_file(name: &str) -> bool {
    local(name).is_file()
}

fn local(name: &str) -> &Path {
    Path::new(name.strip_prefix("file://").unwrap_or(name))
}

/// The file of this name as a table; `None` if there is none, or it is a folder.
///
/// # Errors
/// [`Error::Invalid`] when the extension does not tell the kind, or the file is of another kind.
pub(super) async fn open(ctx: &SessionContext, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
    let path = local(name);
    if !path.is_file() {
        return Ok(None);
    }
    let absolute = std::path::absolute(path).map_err(|e| Error::invalid(e.to_string(), name))?;
    let place = absolute.display().to_string();
    let (stem, compression) = match place.rsplit_once('.') {
        Some((stem, "gz")) => (stem, FileCompressionType::GZIP),
        _ => (place.as_str(), FileCompressionType::UNCOMPRESSED),
    };
    let extension = place
        .rsplit('/')
        .next()
        .and_then(|file| file.split_once('.'))
        .map_or("", |(_, e)| e);
    let kind = Path::new(stem).extension().and_then(|e| e.to_str()).unwrap_or("");
    let frame = match kind {
        "parquet" | "pq" => {
            check_footer(&absolute, &place)?;
            let options = ParquetReadOptions::default().file_extension(extension);
            ctx.read_parquet(&place, options).await
        }
        "csv" => {
            let options = CsvReadOptions::new()
                .file_extension(extension)
                .file_compression_type(compression);
            ctx.read_csv(&place, options).await
        }
        "json" | "ndjson" | "jsonl" => {
            let options = JsonReadOptions::default()
                .file_extension(extension)
                .file_compression_type(compression);
            ctx.read_json(&place, options).await
        }
        "arrow" | "feather" | "ipc" => {
            let options = ArrowReadOptions {
                file_extension: extension,
                ..ArrowReadOptions::default()
            };
            ctx.read_arrow(&place, options).await
        }
        other => {
            return Err(Error::invalid(
                format!("the extension {other:?} does not tell what this is"),
                name,
            )
            .with_hint("files ending in .parquet, .csv, .ndjson, .json or .arrow can be read"));
        }
    };
    let frame = frame.map_err(|e| match Error::from(e) {
        Error::Engine(inner) => Error::invalid(format!("cannot be read: {}", inner.strip_backtrace()), name),
        ours => ours,
    })?;
    Ok(Some(frame.into_view()))
}

fn check_footer(path: &Path, place: &str) -> Result<()> {
    let unreadable = |e: std::io::Error| Error::invalid(format!("cannot be read: {e}"), place);
    let mut file = File::open(path).map_err(unreadable)?;
    let bytes = file.metadata().map_err(unreadable)?.len();
    if bytes < PARQUET_TAIL as u64 + 4 {
        return Err(Error::invalid(
            format!("not a Parquet file: it has {bytes} bytes"),
            place,
        ));
    }
    let mut tail = [0; PARQUET_TAIL];
    file.seek(SeekFrom::End(-(PARQUET_TAIL as i64)))
        .map_err(unreadable)?;
    file.read_exact(&mut tail).map_err(unreadable)?;
    let length = parquet_footer_length(tail, bytes, PARQUET_FOOTER_BYTES, place)?;
    file.seek(SeekFrom::Start(bytes - PARQUET_TAIL as u64 - length))
        .map_err(unreadable)?;
    let mut footer = Vec::new();
    file.take(length).read_to_end(&mut footer).map_err(unreadable)?;
    check_parquet_footer(&footer, place)
}
