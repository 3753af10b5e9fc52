//! The console: its page and its files, as the build found them in console/dist.
//!
//! All of it is open to whoever reaches the address: it holds nothing, and what it asks for by itself isn't open. The page is
//! made anew for every visit: its Content-Security-Policy lets in scripts and styles of this address, and those styles beside
//! that carry the visit's nonce, which the page hands to its editor. Nothing else is run or fetched.

use std::io::Read as _;
use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use flate2::read::GzDecoder;
use hyper::HeaderMap;
use hyper::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue,
    VARY,
};

use super::Api;
use super::auth::random;
use super::extract::Path;
use super::problem::{Kind, Problem};

include!(concat!(env!("OUT_DIR"), "/console.rs"));

/// Where the page has its nonce.
const PLACE_OF_NONCE: &str = "__CSP_NONCE__";

/// The page of a build without the console.
const WITHOUT: &str = "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width\">\n\
<title>Tidegate</title>\n<style nonce=\"__CSP_NONCE__\">body { font: 1rem/1.5 system-ui, sans-serif; margin: 3rem auto; max-width: 40rem; padding: 0 1rem }</style>\n\
<h1>Tidegate</h1>\n<p>This gateway was built without its console. <code>cargo xtask console</code> builds it; the next build of the gateway holds it.</p>\n\
<p>Everything else is there: <a href=\"/api/v1/openapi.json\">the HTTP interface</a> and the command line.</p>\n</html>\n";

/// A file of the console.
struct File {
    name: &'static str,
    content_type: &'static str,
    /// Its name says what is inside.
    is_for_ever: bool,
    gzipped: &'static [u8],
}

/// The console's page, or one that says how the console is built.
#[utoipa::path(get, path = "/", operation_id = "console", tag = "console",
    responses((status = 200, description = "The page", body = String, content_type = "text/html; charset=utf-8")))]
pub(super) async fn page() -> Result<Response, Problem> {
    let nonce =
        random("").ok_or_else(|| Problem::new(Kind::Internal, "the system gives no random numbers"))?;
    let policy = HeaderValue::try_from(policy(&nonce)).map_err(|error| {
        tracing::error!(%error, "a nonce is no part of a header");
        Problem::new(Kind::Internal, "the page can't be made")
    })?;
    let page = INDEX.unwrap_or(WITHOUT).replace(PLACE_OF_NONCE, &nonce);
    let kind = HeaderValue::from_static("text/html; charset=utf-8");
    Ok(([(CONTENT_TYPE, kind), (CONTENT_SECURITY_POLICY, policy)], page).into_response())
}

fn policy(nonce: &str) -> String {
    format!(
        "default-src 'none'; script-src 'self'; style-src 'self' 'nonce-{nonce}'; img-src 'self' data:; font-src 'self'; \
         connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
}

/// A file of the console. One whose name says what is inside may be kept for ever.
#[utoipa::path(get, path = "/console/{file}", operation_id = "consoleFile", tag = "console", params(("file" = String, Path)),
    responses((status = 200, description = "The file", body = String, content_type = "*/*")))]
pub(super) async fn file(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let missing = || Problem::new(Kind::NoPath, "the console has no such file");
    let file = FILES.iter().find(|file| file.name == name).ok_or_else(missing)?;
    send(&api, file, &headers).await
}

async fn send(api: &Arc<Api>, file: &'static File, headers: &HeaderMap) -> Result<Response, Problem> {
    let mut response = if takes_gzip(headers) {
        ([(CONTENT_ENCODING, HeaderValue::from_static("gzip"))], file.gzipped).into_response()
    } else {
        api.blocking(|_| inflate(file)).await?.into_response()
    };
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(file.content_type));
    headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
    if file.is_for_ever {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=31536000, immutable"));
    }
    Ok(response)
}

fn inflate(file: &File) -> Result<Vec<u8>, Problem> {
    let mut plain = Vec::new();
    GzDecoder::new(file.gzipped).read_to_end(&mut plain).map_err(|error| {
        tracing::error!(file = file.name, %error, "a file of the console can't be inflated");
        Problem::new(Kind::Internal, "the file can't be inflated")
    })?;
    Ok(plain)
}

/// Whether a reader says that it takes gzip (RFC 9110 §12.5.3): by name, or by `*` where it isn't named, with a weight above 0.
fn takes_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    let mut any = false;
    for coding in values.flat_map(|value| value.split(',')) {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
        let weight = weight.trim().strip_prefix("q=").map_or(Ok(1.0), str::parse::<f32>);
        let is_taken = weight.is_ok_and(|weight| weight > 0.0);
        match name.trim() {
            name if name.eq_ignore_ascii_case("gzip") || name.eq_ignore_ascii_case("x-gzip") => {
                return is_taken;
            }
            "*" => any = is_taken,
            _ => {}
        }
    }
    any
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use http_body_util::BodyExt as _;

    use super::super::ApiServer;
    use super::super::tests::gateway;
    use super::*;
    use crate::config::Admin;

    #[test]
    fn gzip_is_sent_to_those_who_take_it() {
        let takes = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(ACCEPT_ENCODING, HeaderValue::from_str(value).unwrap());
            }
            takes_gzip(&headers)
        };
        for taken in ["gzip", "GZIP", "br, gzip;q=0.5", "x-gzip", "*", "br;q=1, *;q=0.1", "gzip ; q=1"] {
            assert!(takes(&[taken]), "{taken}");
        }
        assert!(takes(&["br", "gzip"]));
        for refused in [
            "",
            "br",
            "identity",
            "gzip;q=0",
            "gzip;q=0.0, *",
            "*;q=0",
            "gzip;q=nonsense",
            "gzipped",
            "*, gzip;q=0",
        ] {
            assert!(!takes(&[refused]), "{refused}");
        }
        assert!(!takes(&[]));
    }

    #[test]
    fn what_the_build_took_in_is_whole_and_the_page_names_nothing_else() {
        for file in FILES {
            assert!(!inflate(file).unwrap().is_empty(), "{}", file.name);
        }
        let index = INDEX.unwrap_or(WITHOUT);
        assert!(index.contains(PLACE_OF_NONCE), "{index}");
        for reference in index.split("/console/").skip(1) {
            let name = reference.split('"').next().unwrap();
            assert!(FILES.iter().any(|file| file.name == name && file.is_for_ever), "{name}");
        }
    }

    /// A file as the build takes it in.
    fn taken_in(name: &'static str, text: &str, is_for_ever: bool) -> &'static File {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(text.as_bytes()).unwrap();
        let gzipped = Vec::leak(encoder.finish().unwrap());
        Box::leak(Box::new(File {
            name,
            content_type: "text/javascript; charset=utf-8",
            is_for_ever,
            gzipped,
        }))
    }

    #[tokio::test]
    async fn a_file_comes_as_it_is_taken_and_is_kept_for_ever_when_its_name_says_what_is_inside() {
        let server = ApiServer::open(&Admin::default(), None, gateway()).unwrap();
        for (file, cached) in [
            (taken_in("app-5XQFAB2C.js", "run();", true), Some("public, max-age=31536000, immutable")),
            (taken_in("app.js", "run();", false), None),
        ] {
            for (accepted, coding, body) in
                [("gzip", Some("gzip"), file.gzipped), ("br", None, &b"run();"[..])]
            {
                let mut headers = HeaderMap::new();
                headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(accepted));
                let answer = send(&server.api, file, &headers).await.unwrap();
                let header = |name| answer.headers().get(name).map(|value| value.to_str().unwrap());
                assert_eq!(header(CONTENT_ENCODING), coding);
                assert_eq!(header(CONTENT_TYPE), Some("text/javascript; charset=utf-8"));
                assert_eq!(header(VARY), Some("accept-encoding"));
                assert_eq!(header(CACHE_CONTROL), cached);
                assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), body);
            }
        }
        let damaged =
            File { name: "a.js", content_type: "text/javascript", is_for_ever: false, gzipped: b"no gzip" };
        assert!(inflate(&damaged).is_err());
    }
}
