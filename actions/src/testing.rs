//! What the sinks' tests share.

use std::collections::HashMap;
use std::net::SocketAddr;

use tokio::net::TcpSocket;

use crate::config::{ActionConfig, OrderBy};
use crate::error::{ActionConfigError, RenderError};
use crate::plan::{ActionPlan, OutputRef, Renderer, Request};

/// Renders each template as the text given for its field, or as the template's own text.
pub(crate) struct FakeRenderer<'a> {
    plan: &'a ActionPlan,
    values: HashMap<&'a str, &'a [u8]>,
    output: OutputRef<'a>,
}

impl<'a> FakeRenderer<'a> {
    pub(crate) fn new(plan: &'a ActionPlan, values: &[(&'a str, &'a [u8])]) -> Self {
        let output = OutputRef { bytes: br#"{"t":61}"#, is_json: true };
        Self { plan, values: values.iter().copied().collect(), output }
    }

    pub(crate) fn with_output(mut self, bytes: &'a [u8]) -> Self {
        self.output = OutputRef { bytes, is_json: false };
        self
    }
}

impl Renderer for FakeRenderer<'_> {
    fn render(&mut self, index: usize, out: &mut Vec<u8>) -> Result<(), RenderError> {
        let spec = &self.plan.templates()[index];
        out.extend_from_slice(self.values.get(spec.field.as_str()).copied().unwrap_or(spec.text.as_bytes()));
        Ok(())
    }

    fn output(&mut self) -> OutputRef<'_> {
        self.output
    }

    fn line(&self, order_by: OrderBy) -> &str {
        match order_by {
            OrderBy::Publisher => "client-1",
            OrderBy::Topic => "a/b",
            OrderBy::None => "",
        }
    }
}

#[track_caller]
pub(crate) fn config(text: &str) -> ActionConfig {
    toml::from_str(text).unwrap()
}

#[track_caller]
pub(crate) fn plan(text: &str) -> ActionPlan {
    ActionPlan::new("rule", &config(text)).unwrap()
}

/// Returns the text of the error that `text` is refused with, by serde or by the plan.
#[track_caller]
pub(crate) fn refusal(text: &str) -> String {
    let config: ActionConfig = match toml::from_str(text) {
        Ok(config) => config,
        Err(error) => return error.message().to_owned(),
    };
    let error: ActionConfigError = ActionPlan::new("rule", &config).expect_err(text);
    error.to_string()
}

/// An address that refuses connections, and that nobody else is given as long as the socket is there.
pub(crate) fn closed() -> (SocketAddr, TcpSocket) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    (socket.local_addr().unwrap(), socket)
}

pub(crate) fn render(plan: &ActionPlan, values: &[(&str, &[u8])]) -> Result<Request, RenderError> {
    plan.render(&mut FakeRenderer::new(plan, values))
}
