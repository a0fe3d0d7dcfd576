//! A headless Chromium, driven over its DevTools protocol.

use std::collections::VecDeque;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use serde_json::{Value, json};
use tungstenite::protocol::WebSocketConfig;
use tungstenite::{Message, WebSocket};

use crate::kit::{PATIENCE, until};

/// How often a page is looked at while something is waited for.
const LOOK: Duration = Duration::from_millis(50);

/// The browser. It ends with the value.
pub struct Browser {
    child: Child,
    profile: tempfile::TempDir,
    socket: WebSocket<TcpStream>,
    next: u64,
    heard: VecDeque<Value>,
    shots: PathBuf,
}

/// One page of it.
pub struct Page<'b> {
    browser: &'b mut Browser,
    session: String,
    target: String,
    /// What went wrong on it so far.
    pub errors: Vec<String>,
}

impl Browser {
    /// Starts `program`; pictures go to the folder `shots`.
    pub fn start(program: &Path, shots: &Path) -> Self {
        std::fs::create_dir_all(shots).unwrap();
        let profile = tempfile::tempdir().unwrap();
        let child = Command::new(program)
            .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run"])
            .args(["--disable-background-networking", "--disable-component-update"])
            .args(["--disable-dev-shm-usage", "--window-size=1400,1000"])
            .arg("--remote-debugging-port=0")
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", program.display()));
        let file = profile.path().join("DevToolsActivePort");
        let (port, path) = until("the browser listens", || {
            let text = std::fs::read_to_string(&file).ok()?;
            let (port, path) = text.trim().split_once('\n')?;
            Some((port.to_owned(), path.to_owned()))
        });
        let stream = TcpStream::connect(format!("127.0.0.1:{port}")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let url = format!("ws://127.0.0.1:{port}{path}");
        // Pictures are large.
        let config = WebSocketConfig::default().max_frame_size(None).max_message_size(None);
        let (socket, _) =
            tungstenite::client::client_with_config(url, stream, Some(config)).unwrap();
        Self { child, profile, socket, next: 0, heard: VecDeque::new(), shots: shots.into() }
    }

    fn call(&mut self, session: Option<&str>, method: &str, params: Value) -> Value {
        self.next += 1;
        let id = self.next;
        let mut frame = json!({ "id": id, "method": method, "params": params });
        if let Some(session) = session {
            frame["sessionId"] = session.into();
        }
        self.socket.send(Message::text(frame.to_string())).unwrap();
        loop {
            let Message::Text(text) = self.socket.read().unwrap() else { continue };
            let frame: Value = serde_json::from_str(&text).unwrap();
            if frame["id"] == id {
                assert!(frame["error"].is_null(), "{method}: {}", frame["error"]);
                return frame["result"].clone();
            }
            self.heard.push_back(frame);
        }
    }

    /// A fresh page at this address.
    pub fn open(&mut self, url: &str) -> Page<'_> {
        let made = self.call(None, "Target.createTarget", json!({ "url": "about:blank" }));
        let target = made["targetId"].as_str().unwrap().to_owned();
        let attach = json!({ "targetId": target, "flatten": true });
        let attached = self.call(None, "Target.attachToTarget", attach);
        let session = attached["sessionId"].as_str().unwrap().to_owned();
        let mut page = Page { browser: self, session, target, errors: Vec::new() };
        for domain in ["Page", "Runtime", "Log", "Network"] {
            page.call(&format!("{domain}.enable"), json!({}));
        }
        page.call("Page.navigate", json!({ "url": url }));
        page
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
        // Its helpers may still write for a moment; the folder is temporary.
        let _ = std::fs::remove_dir_all(self.profile.path());
    }
}

impl Page<'_> {
    fn call(&mut self, method: &str, params: Value) -> Value {
        let session = self.session.clone();
        let result = self.browser.call(Some(&session), method, params);
        while let Some(frame) = self.browser.heard.pop_front() {
            if frame["sessionId"] == session.as_str() {
                self.errors.extend(complaint(&frame));
            }
        }
        result
    }

    /// The value of an expression on the page.
    pub fn eval(&mut self, expression: &str) -> Value {
        let asked =
            json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let result = self.call("Runtime.evaluate", asked);
        assert!(result["exceptionDetails"].is_null(), "{expression}: {result}");
        result["result"]["value"].clone()
    }

    /// Waits until the expression is true.
    #[track_caller]
    pub fn wait(&mut self, what: &str, expression: &str) {
        let end = Instant::now() + PATIENCE;
        while self.eval(&format!("!!(document.body && ({expression}))")) != true {
            if Instant::now() > end {
                self.picture("waited-in-vain");
                let text = self.eval("document.body.innerText");
                panic!("waited in vain: {what}; errors: {:#?}; text: {text}", self.errors);
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Waits until the page shows this text, and has loaded what it wants.
    #[track_caller]
    pub fn shows(&mut self, text: &str) {
        let quoted = Value::from(text);
        let shown = format!(
            "document.body.innerText.includes({quoted}) && \
             !document.querySelector('.bb-load-indicator')"
        );
        self.wait(&format!("the page shows `{text}`"), &shown);
    }

    /// Presses the first button or link whose text is this one, once it is there.
    #[track_caller]
    pub fn press(&mut self, text: &str) {
        let quoted = Value::from(text);
        let find = format!(
            "[...document.querySelectorAll('button, a, [role=button]')]\
             .find(e => e.innerText.trim() === {quoted} && e.offsetParent !== null)"
        );
        self.wait(&format!("there is `{text}` to press"), &find);
        self.eval(&format!("{find}.click()"));
    }

    /// A picture of the page, for people.
    pub fn picture(&mut self, name: &str) {
        let taken = self.call("Page.captureScreenshot", json!({ "format": "png" }));
        let data = taken["data"].as_str().unwrap();
        let bytes = base64::engine::general_purpose::STANDARD.decode(data).unwrap();
        std::fs::write(self.browser.shots.join(format!("{name}.png")), bytes).unwrap();
    }

    /// Fails when anything went wrong on the page so far.
    #[track_caller]
    pub fn is_clean(&mut self, name: &str) {
        // What was said until now is heard with the answer.
        self.eval("1");
        assert!(self.errors.is_empty(), "{name}: {:#?}", self.errors);
    }
}

impl Drop for Page<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let close = json!({ "targetId": self.target });
            self.browser.call(None, "Target.closeTarget", close);
        }
    }
}

/// What a message of the browser complains of.
fn complaint(frame: &Value) -> Option<String> {
    let params = &frame["params"];
    match frame["method"].as_str()? {
        "Runtime.exceptionThrown" => {
            let details = &params["exceptionDetails"];
            Some(format!("exception: {} {}", details["text"], details["exception"]["description"]))
        }
        "Runtime.consoleAPICalled" if params["type"] == "error" => {
            Some(format!("console.error: {}", params["args"]))
        }
        "Log.entryAdded" if params["entry"]["level"] == "error" => {
            let entry = &params["entry"];
            Some(format!("log: {} {}", entry["text"], entry["url"]))
        }
        "Network.responseReceived" if params["response"]["status"].as_u64()? >= 400 => {
            let response = &params["response"];
            Some(format!("answer {} {}", response["status"], response["url"]))
        }
        _ => None,
    }
}
