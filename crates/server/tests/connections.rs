//! Real connections: slow and broken ones, and the end of the server.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use stackelberg_server::{Config, Error, Limits, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::common::{Client, block_on, eventually, models};

/// A server that listens.
struct Listening {
    address: std::net::SocketAddr,
    stop: oneshot::Sender<()>,
    served: JoinHandle<Result<(), Error>>,
    /// Asks the same server without a connection.
    client: Client,
}

async fn listen(limits: Limits) -> Listening {
    let server = Server::new(Config { limits, ..Config::default() }, models()).unwrap();
    let client = Client::new(&server);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let served = tokio::spawn(server.serve(listener, async {
        let _ = stopped.await;
    }));
    Listening { address, stop, served, client }
}

impl Listening {
    async fn connect(&self, body: &Value) -> TcpStream {
        let body = body.to_string();
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let head = format!(
            "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n",
            body.len()
        );
        stream.write_all((head + &body).as_bytes()).await.unwrap();
        stream
    }
}

async fn all(mut stream: TcpStream) -> String {
    let mut text = String::new();
    let _ =
        tokio::time::timeout(Duration::from_secs(60), stream.read_to_string(&mut text)).await.unwrap();
    text
}

fn long(stream: bool) -> Value {
    json!({"prompt": "w1", "max_tokens": 1500, "ignore_eos": true, "n": 4, "seed": 3, "stream": stream})
}

#[test]
fn a_connection_that_is_closed_stops_its_request() {
    block_on(async {
        let server = listen(Limits::default()).await;
        for stream in [true, false] {
            let before = server.client.metric("stackelberg_answers_total{outcome=\"cancelled\"}").await;
            let connection = server.connect(&long(stream)).await;
            eventually("it runs", || async { server.client.metric("stackelberg_running").await == 4.0 })
                .await;
            drop(connection);
            eventually("it is cancelled", || async {
                server.client.metric("stackelberg_answers_total{outcome=\"cancelled\"}").await
                    == before + 4.0
            })
            .await;
        }
    });
}

#[test]
fn running_requests_finish_when_the_server_stops() {
    block_on(async {
        let server = listen(Limits::default()).await;
        let expected = server.client.good("/v1/completions", long(false)).await.json();
        assert_eq!(expected["choices"].as_array().unwrap().len(), 4);
        let (one, other) = (server.connect(&long(false)).await, server.connect(&long(false)).await);
        eventually("both run", || async { server.client.metric("stackelberg_running").await == 8.0 })
            .await;
        server.stop.send(()).unwrap();
        server.served.await.unwrap().unwrap();
        for connection in [one, other] {
            let text = all(connection).await;
            let body: Value = serde_json::from_str(text.split("\r\n\r\n").nth(1).unwrap()).unwrap();
            assert_eq!(body["choices"], expected["choices"]);
        }
        // Nobody listens, and what still has a connection is refused.
        assert!(TcpStream::connect(server.address).await.is_err());
        let reply = server.client.ask("/v1/completions", json!({"prompt": "w1"})).await;
        assert_eq!((reply.status, &reply.json()["error"]["code"]), (503, &json!("shutting_down")));
        assert_eq!(server.client.get("/ready").await.status, 503);
        assert_eq!(server.client.get("/health").await.json()["status"], "draining");
    });
}

#[test]
fn what_does_not_finish_in_time_is_aborted() {
    block_on(async {
        let limits = Limits { drain: Duration::ZERO, sequences: 1, ..Limits::default() };
        let server = listen(limits).await;
        // One after the other, this takes its time.
        let body = |stream: bool| json!({"prompt": "w1", "max_tokens": 390, "ignore_eos": true, "n": 60, "stream": stream});
        let (whole, streamed) = (server.connect(&body(false)).await, server.connect(&body(true)).await);
        eventually("both run", || async {
            server.client.metric("stackelberg_running").await
                + server.client.metric("stackelberg_waiting").await
                > 100.0
        })
        .await;
        let began = Instant::now();
        server.stop.send(()).unwrap();
        let (whole, streamed) = (tokio::spawn(all(whole)), tokio::spawn(all(streamed)));
        server.served.await.unwrap().unwrap();
        assert!(began.elapsed() < Duration::from_secs(5));
        let (whole, streamed) = (whole.await.unwrap(), streamed.await.unwrap());
        assert!(whole.contains("\"finish_reason\":\"abort\""), "{whole}");
        assert!(streamed.contains("\"finish_reason\":\"abort\""), "{streamed}");
        assert!(streamed.contains("data: [DONE]"), "{streamed}");
    });
}

#[test]
fn slow_and_half_sent_requests_are_given_up() {
    block_on(async {
        let server = listen(Limits { arrival: Duration::from_millis(200), ..Limits::default() }).await;
        let mut head = TcpStream::connect(server.address).await.unwrap();
        head.write_all(b"POST /v1/completions HTTP/1.1\r\nHost: loc").await.unwrap();
        let mut body = TcpStream::connect(server.address).await.unwrap();
        let half = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{";
        body.write_all(half).await.unwrap();
        // Others are answered meanwhile.
        let good = server.connect(&json!({"prompt": "w1", "max_tokens": 2})).await;
        assert!(all(good).await.starts_with("HTTP/1.1 200"));
        let mut text = vec![0; 1000];
        let read = body.read(&mut text).await.unwrap();
        let text = String::from_utf8_lossy(&text[..read]).into_owned();
        assert!(text.starts_with("HTTP/1.1 408"), "{text}");
        let rest = all(head).await;
        assert!(rest.is_empty() || rest.starts_with("HTTP/1.1 408"), "{rest}");
    });
}

#[test]
fn connections_that_ask_for_nothing_do_not_hold_the_server() {
    block_on(async {
        let limits = Limits { drain: Duration::from_secs(60), ..Limits::default() };
        let server = listen(limits).await;
        let mut half = TcpStream::connect(server.address).await.unwrap();
        half.write_all(b"POST /v1/completions HTTP/1.1\r\nHost: loc").await.unwrap();
        // The server knows the connection once it has answered another one.
        assert!(
            all(server.connect(&json!({"prompt": "w1", "max_tokens": 2})).await)
                .await
                .contains("200 OK")
        );
        let mut body = TcpStream::connect(server.address).await.unwrap();
        let part = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{";
        body.write_all(part).await.unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
        let began = Instant::now();
        server.stop.send(()).unwrap();
        server.served.await.unwrap().unwrap();
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
        // A body that has not come is not waited for.
        let refused = all(body).await;
        assert!(refused.starts_with("HTTP/1.1 503"), "{refused}");
    });
}

#[test]
fn a_reader_that_is_slow_gets_the_same_text() {
    block_on(async {
        let server = listen(Limits::default()).await;
        let expected = server.client.good("/v1/completions", long(true)).await;
        let connection = server.connect(&long(true)).await;
        eventually("it is done", || async {
            server.client.metric("stackelberg_answers_total{outcome=\"length\"}").await == 8.0
        })
        .await;
        let text = all(connection).await;
        assert!(text.contains("data: [DONE]"));
        let last = |text: &str| text.matches("\"finish_reason\":\"length\"").count();
        assert_eq!(last(&text), last(&expected.text));
    });
}

#[test]
fn the_server_ends_when_the_decoding_thread_does() {
    block_on(async {
        let server = listen(Limits::default()).await;
        let body = json!({"prompt": "w1 panic", "guidance": {"reward": "ones"}});
        let connection = server.connect(&body).await;
        let error = server.served.await.unwrap().unwrap_err();
        assert!(matches!(&error, Error::Engine(why) if why.contains("the reward panics")), "{error}");
        assert!(error.to_string().starts_with("the decoding thread has ended: "), "{error}");
        drop(connection);
    });
}
