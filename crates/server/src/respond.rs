//! Answers a request that is ready: whole, or as a stream of server-sent events.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderValue, Response};
use futures_util::stream;
use stackelberg_decoding::Event;
use tokio::sync::watch;

use crate::app::{App, Phase, blocking};
use crate::asked::Asked;
use crate::body;
use crate::engine::Events;
use crate::error::ApiError;
use crate::openai::answer::Usage;
use crate::openai::request::StreamOptions;
use crate::pieces::{Kind, Piece, Pieces};
use crate::render::{Renderer, Whole};

/// Decodes the choices of a request. If the client goes away, this future or the body that it returned is dropped, with it
/// the receiver of the events, and the choices end.
///
/// # Errors
/// The queue is full, or a choice cannot be decoded. In a stream that has begun, errors are events.
pub(crate) async fn respond(
    app: &App,
    kind: Kind,
    mut asked: Asked,
) -> Result<Response<Body>, ApiError> {
    if app.phase() != Phase::Serving {
        return Err(ApiError::stopping());
    }
    let places = app.engine.reserve(asked.choices())?;
    app.unless_aborted(asked.read_prompts(app, &places)).await?;
    let asked = Arc::new(asked);
    let requests = if asked.generates { asked.requests() } else { Vec::new() };
    let events = app.engine.submit(places, requests).await?;
    let of_prompts = asked.clone();
    let (pieces, before) = blocking(move || {
        let mut pieces = Pieces::new(kind, of_prompts);
        let before = pieces.before();
        Ok((pieces, before.into()))
    })
    .await?;
    let source =
        Source { events, before, pieces, phase: app.watch(), open: vec![true; asked.choices()] };
    let renderer = Renderer::new(app, kind, asked.clone());
    match asked.stream {
        Some(options) => Ok(streamed(Streaming::new(source, renderer, options))),
        None => whole(source, renderer, asked.choices()).await,
    }
}

/// Pieces of all choices, as they come.
struct Source {
    events: Events,
    /// Pieces that come before anything is generated.
    before: VecDeque<(usize, Piece)>,
    pieces: Pieces,
    phase: watch::Receiver<Phase>,
    /// Whether each choice goes on.
    open: Vec<bool>,
}

impl Source {
    /// The next piece and its choice; `None` when all choices have ended.
    async fn next(&mut self) -> Option<Result<(usize, Piece), ApiError>> {
        let first = self.open.iter().position(|open| *open)?;
        if let Some((choice, piece)) = self.before.pop_front() {
            self.open[choice] &= piece.end.is_none();
            return Some(Ok((choice, piece)));
        }
        let event = tokio::select! {
            biased;
            _ = self.phase.wait_for(|phase| *phase == Phase::Aborting) => {
                self.open[first] = false;
                return Some(Ok((first, Piece::aborted())));
            }
            event = self.events.next() => event,
        };
        let Some((choice, event)) = event else { return Some(Err(ApiError::stopping())) };
        Some(self.piece(choice, event))
    }

    /// A piece that is there already.
    fn ready(&mut self) -> Option<Result<(usize, Piece), ApiError>> {
        if !self.before.is_empty() {
            return None;
        }
        let (choice, event) = self.events.ready()?;
        Some(self.piece(choice, event))
    }

    fn piece(
        &mut self,
        choice: usize,
        event: Result<Event, ApiError>,
    ) -> Result<(usize, Piece), ApiError> {
        let piece = self.pieces.piece(choice, event?)?;
        self.open[choice] &= piece.end.is_none();
        Ok((choice, piece))
    }
}

/// The whole answer.
async fn whole(
    mut source: Source,
    renderer: Renderer,
    choices: usize,
) -> Result<Response<Body>, ApiError> {
    let mut wholes: Vec<Whole> = (0..choices).map(|_| Whole::default()).collect();
    while let Some(next) = source.next().await {
        let (choice, piece) = next?;
        wholes[choice].add(piece);
    }
    debug_assert!(wholes.iter().all(Whole::is_finished), "a choice has no end");
    let text = blocking(move || renderer.whole(wholes)).await?;
    Ok(body::of_json(text))
}

/// A stream under way.
struct Streaming {
    source: Source,
    renderer: Renderer,
    options: StreamOptions,
    /// Whether anything was sent.
    opened: bool,
    /// Choices that have begun.
    begun: Vec<bool>,
    /// Tokens of each choice.
    tokens: usize,
    ended: bool,
}

impl Streaming {
    fn new(source: Source, renderer: Renderer, options: StreamOptions) -> Self {
        let begun = vec![false; source.open.len()];
        Self { source, renderer, options, opened: false, begun, tokens: 0, ended: false }
    }

    /// The next bytes of the body. What is ready is sent together, up to a limit.
    async fn next(&mut self) -> Option<Bytes> {
        let mut bytes = String::new();
        if !std::mem::replace(&mut self.opened, true) {
            self.open(&mut bytes);
        }
        while bytes.is_empty() && !self.ended {
            match tokio::time::timeout(SILENCE, self.source.next()).await {
                Err(_) => bytes.push_str(WAITING),
                Ok(None) => self.finish(&mut bytes),
                Ok(Some(next)) => self.take(next, &mut bytes),
            }
            while !self.ended
                && bytes.len() < TOGETHER
                && let Some(next) = self.source.ready()
            {
                self.take(next, &mut bytes);
            }
        }
        (!bytes.is_empty()).then(|| bytes.into())
    }

    /// The chunks with which choices of a chat begin.
    fn open(&mut self, bytes: &mut String) {
        for choice in 0..self.source.open.len() {
            match self.renderer.first(choice, self.usage()) {
                Ok(Some(first)) => event(bytes, &first),
                Ok(None) => {}
                Err(error) => self.fail(&error, bytes),
            }
        }
    }

    fn fail(&mut self, error: &ApiError, bytes: &mut String) {
        event(bytes, &error.json());
        event(bytes, DONE);
        self.ended = true;
    }

    fn take(&mut self, next: Result<(usize, Piece), ApiError>, bytes: &mut String) {
        let written = next.and_then(|(choice, piece)| self.write(choice, piece, bytes));
        if let Err(error) = written {
            self.fail(&error, bytes);
        }
    }

    fn write(&mut self, choice: usize, piece: Piece, bytes: &mut String) -> Result<(), ApiError> {
        let begins = !std::mem::replace(&mut self.begun[choice], true);
        self.tokens += piece.tokens.len();
        // Text that may become a stop text is held back, as are parts of characters.
        let says = !piece.text.is_empty() || piece.trace.is_some() || piece.end.is_some();
        if says || self.renderer.tells_tokens() {
            event(bytes, &self.renderer.chunk(choice, piece, self.usage(), begins)?);
        }
        Ok(())
    }

    /// The numbers of tokens, if every chunk has them.
    fn usage(&self) -> Option<Usage> {
        let wanted = self.options.continuous_usage_stats.unwrap_or(false);
        wanted.then(|| self.renderer.usage(self.tokens))
    }

    fn finish(&mut self, bytes: &mut String) {
        self.ended = true;
        if self.options.include_usage.unwrap_or(false) {
            match self.renderer.usage_chunk(self.tokens) {
                Ok(chunk) => event(bytes, &chunk),
                Err(error) => event(bytes, &error.json()),
            }
        }
        event(bytes, DONE);
    }
}

/// Bytes of chunks that are sent together.
const TOGETHER: usize = 64 << 10;

/// Time after which a stream without news has a comment, since proxies close connections that are silent.
const SILENCE: Duration = Duration::from_secs(15);

/// A comment, which clients ignore.
const WAITING: &str = ": waiting\n\n";

/// The last event of a stream.
const DONE: &str = "[DONE]";

fn event(bytes: &mut String, data: &str) {
    bytes.push_str("data: ");
    bytes.push_str(data);
    bytes.push_str("\n\n");
}

fn streamed(streaming: Streaming) -> Response<Body> {
    let next = |mut streaming: Streaming| async move {
        let bytes = streaming.next().await?;
        Some((Ok::<_, Infallible>(bytes), streaming))
    };
    let mut response = Response::new(Body::from_stream(stream::unfold(streaming, next)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}
