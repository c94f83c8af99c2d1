//! The region's model store: a read-only HTTP server over one folder, path-style (`/<bucket>/<key>`). IO.
//!
//! A stand-in for the platform's object store as far as the pipeline uses it: GET and HEAD of whole objects. Connections, request
//! size and time are bounded.

use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};

const CONNECTIONS_MAX: usize = 64;
const REQUEST_BYTES_MAX: u64 = 16 << 10;
const IO_TIMEOUT: Duration = Duration::from_secs(30);

pub(crate) fn serve(folder: &Path, listen: SocketAddr) -> Result<()> {
    let listener = TcpListener::bind(listen).with_context(|| format!("cannot listen on {listen}"))?;
    let folder: Arc<Path> = Arc::from(folder);
    let open = Arc::new(AtomicUsize::new(0));
    for stream in listener.incoming() {
        let stream = match stream {
            Ok(stream) => stream,
            Err(error) => {
                // Out of descriptors, most likely: wait for connections to end instead of spinning.
                eprintln!("models: cannot accept a connection: {error}");
                std::thread::sleep(Duration::from_millis(100));
                continue;
            }
        };
        if open.load(Ordering::Relaxed) >= CONNECTIONS_MAX {
            let _ = respond(&stream, "503 Service Unavailable", "too many connections\n", true);
            continue;
        }
        open.fetch_add(1, Ordering::Relaxed);
        let (folder, open) = (Arc::clone(&folder), Arc::clone(&open));
        std::thread::spawn(move || {
            if let Err(error) = answer(&stream, &folder) {
                eprintln!("models: a connection failed: {error}");
            }
            open.fetch_sub(1, Ordering::Relaxed);
        });
    }
    Ok(())
}

/// One request, then the connection closes: objects are few and large.
fn answer(stream: &TcpStream, folder: &Path) -> std::io::Result<()> {
    stream.set_read_timeout(Some(IO_TIMEOUT))?;
    stream.set_write_timeout(Some(IO_TIMEOUT))?;
    let Some((method, target)) = read_request(stream)? else {
        return respond(stream, "400 Bad Request", "not an HTTP request\n", true);
    };
    let with_body = method == "GET";
    if !with_body && method != "HEAD" {
        return respond(stream, "405 Method Not Allowed", "only GET and HEAD\n", true);
    }
    let opened = object_path(folder, &target).map(File::open);
    match opened {
        Some(Ok(file)) if file.metadata()?.is_file() => send(stream, file, with_body),
        Some(Err(error)) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => respond(stream, "404 Not Found", "no such object\n", with_body),
    }
}

fn read_request(stream: &TcpStream) -> std::io::Result<Option<(String, String)>> {
    let mut reader = BufReader::new(stream.take(REQUEST_BYTES_MAX));
    let mut first = String::new();
    reader.read_line(&mut first)?;
    // The headers say nothing that matters here, but a client may not be answered before it has sent them.
    let mut line = String::new();
    while reader.read_line(&mut line)? > 0 && line != "\r\n" && line != "\n" {
        line.clear();
    }
    let mut words = first.split_ascii_whitespace();
    Ok(words.next().zip(words.next()).map(|(method, target)| (method.to_owned(), target.to_owned())))
}

/// Nothing for a path that could leave the folder.
fn object_path(folder: &Path, target: &str) -> Option<PathBuf> {
    let path = target.split(['?', '#']).next()?;
    let relative = Path::new(path.strip_prefix('/')?);
    let plain = relative.components().all(|component| matches!(component, Component::Normal(_)));
    (plain && !path.contains(['%', '\0'])).then(|| folder.join(relative))
}

fn send(mut stream: &TcpStream, file: File, with_body: bool) -> std::io::Result<()> {
    let length = file.metadata()?.len();
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: {length}\r\nETag: \"{length}\"\r\n\
         Last-Modified: Thu, 01 Jan 1970 00:00:00 GMT\r\nConnection: close\r\n\r\n"
    )?;
    if with_body {
        std::io::copy(&mut file.take(length), &mut stream)?;
    }
    Ok(())
}

fn respond(mut stream: &TcpStream, status: &str, body: &str, with_body: bool) -> std::io::Result<()> {
    let length = body.len();
    let body = if with_body { body } else { "" };
    write!(stream, "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_leave_the_folder_are_no_objects() {
        let folder = Path::new("/models");
        assert_eq!(object_path(folder, "/models/fraud/full-1.onnx?x=1"), Some("/models/models/fraud/full-1.onnx".into()));
        for target in ["/../etc/passwd", "/a/../../b", "relative", "//etc/passwd", "/%2e%2e/x", ""] {
            assert_eq!(object_path(folder, target), None, "{target:?}");
        }
    }

    fn ask(folder: &Path, request: &str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client.write_all(request.as_bytes()).unwrap();
        let (server, _) = listener.accept().unwrap();
        answer(&server, folder).unwrap();
        drop(server);
        let mut reply = String::new();
        client.read_to_string(&mut reply).unwrap();
        reply
    }

    #[test]
    fn objects_are_served_whole_and_nothing_can_be_written() {
        let folder = std::env::temp_dir().join(format!("sandbox-models-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("models/fraud")).unwrap();
        std::fs::write(folder.join("models/fraud/full-1.onnx"), "weights").unwrap();
        let found = ask(&folder, "GET /models/fraud/full-1.onnx HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(found.starts_with("HTTP/1.1 200 OK") && found.ends_with("\r\n\r\nweights"), "{found}");
        let head = ask(&folder, "HEAD /models/fraud/full-1.onnx HTTP/1.1\r\n\r\n");
        assert!(head.contains("Content-Length: 7") && head.ends_with("\r\n\r\n"), "{head}");
        assert!(ask(&folder, "GET /models/fraud HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404"));
        assert!(ask(&folder, "PUT /models/x HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 405"));
        assert!(ask(&folder, "\r\n\r\n").starts_with("HTTP/1.1 400"));
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
