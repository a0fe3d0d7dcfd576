//! Buildbot's pages as files: what is served of a folder, and how. The folder is
//! made here; the real pages are looked at by `cargo xtask ui`.

use std::fs;
use std::path::Path;

use botmaster::web::StockUi;
use serde_json::{Value, json};

use crate::support::{Answer, World};

const INDEX: &str = "<html><head><!-- BUILDBOT_THEME_CSS_PLACEHOLDER_BEGIN --><style></style>\
    <!-- BUILDBOT_THEME_CSS_PLACEHOLDER_END --></head>\n  <!-- BUILDBOT_CONFIG_PLACEHOLDER -->\n</html>";

fn write(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// A folder as pip fills it.
fn packages() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in [
        ("buildbot_www/static/index.html", INDEX),
        ("buildbot_www/static/assets/index-1.js", "let x = 1;"),
        ("buildbot_www/static/icon.svg", "<svg/>"),
        ("buildbot_www/static/a b.txt", "blank"),
        ("buildbot_grid_view/static/scripts.js", "grid"),
        ("buildbot_waterfall_view/static/scripts.js", "fall"),
        ("buildbot_waterfall_view/static/styles.css", "a {}"),
        ("secret.txt", "secret"),
    ] {
        write(folder.path(), name, text);
    }
    folder
}

fn get(world: &World, path: &str) -> Answer {
    world.ask("GET", path, &[], "")
}

fn config(world: &World) -> Value {
    json!({
        "title": "Test <CI>",
        "titleURL": format!("{}/", world.url),
        "buildbotURL": format!("{}/", world.url),
        "multiMaster": false,
        "ui_default_config": {},
        "versions": [["botmaster", env!("CARGO_PKG_VERSION")]],
        "auth": {"name": "NoAuth"},
        "avatar_methods": [],
        "plugins": {"grid_view": {}, "waterfall_view": {}},
        "user": {"anonymous": true},
    })
}

#[test]
fn the_pages_are_served_with_their_settings() {
    let folder = packages();
    let world = World::with_pages(folder.path());
    let index = get(&world, "/");
    assert_eq!(index.headers["content-type"], "text/html; charset=utf-8");
    assert_eq!(index.headers["cache-control"], "public,max-age=0");
    assert_eq!(index.headers["content-security-policy"], "frame-ancestors 'none'");
    let begin = "<script id=\"bb-config\">window.buildbotFrontendConfig = ";
    let (_, rest) = index.body.split_once(begin).unwrap();
    let (settings, _) = rest.split_once(";</script>").unwrap();
    assert!(!settings.contains('<'), "a title cannot end the script: {settings}");
    assert_eq!(serde_json::from_str::<Value>(settings).unwrap(), config(&world));
    assert!(index.body.contains("<style></style>"), "the theme stays as it is");
    assert_eq!(get(&world, "/config").json(), config(&world));
    assert_eq!(get(&world, "/index.html").body, INDEX);
    // What a proxy says of the address outside.
    let outside = [("Host", "ci.example.org"), ("X-Forwarded-Proto", "https")];
    let config = world.ask("GET", "/config", &outside, "").json();
    assert_eq!(config["buildbotURL"], "https://ci.example.org/");
    // Our own page is still there.
    assert!(get(&world, "/status").body.contains("<h2>Builders</h2>"));
}

#[test]
fn files_have_their_kind_and_are_kept_by_browsers() {
    let folder = packages();
    let world = World::with_pages(folder.path());
    for (path, kind, cache, body) in [
        (
            "/assets/index-1.js",
            "text/javascript; charset=utf-8",
            "public,max-age=31536000,immutable",
            "let x = 1;",
        ),
        ("//icon.svg", "image/svg+xml", "public,max-age=0", "<svg/>"),
        ("/a%20b.txt", "text/plain; charset=utf-8", "public,max-age=0", "blank"),
        (
            "/plugins/grid_view/scripts.js",
            "text/javascript; charset=utf-8",
            "public,max-age=0",
            "grid",
        ),
        // There is none in the package, and the page asks for it.
        ("/plugins/grid_view/styles.css", "text/css; charset=utf-8", "public,max-age=0", ""),
        (
            "/plugins/waterfall_view/styles.css",
            "text/css; charset=utf-8",
            "public,max-age=0",
            "a {}",
        ),
    ] {
        let answer = get(&world, path);
        assert_eq!((answer.status, answer.body.as_str()), (200, body), "{path}");
        assert_eq!(answer.headers["content-type"], kind, "{path}");
        assert_eq!(answer.headers["cache-control"], cache, "{path}");
        assert_eq!(answer.headers["x-content-type-options"], "nosniff", "{path}");
        let tag = [("If-None-Match", answer.headers["etag"].as_str())];
        let again = world.ask("GET", path, &tag, "");
        assert_eq!((again.status, again.body.as_str()), (304, ""), "{path}");
    }
}

#[test]
fn nothing_else_is_served() {
    let folder = packages();
    let world = World::with_pages(folder.path());
    for path in [
        "/secret.txt",
        "/../secret.txt",
        "/../../secret.txt",
        "/%2e%2e/%2e%2e/secret.txt",
        "/assets/..%2f..%2f..%2fsecret.txt",
        "/assets",
        "/plugins/console_view/scripts.js",
        "/auth/login",
    ] {
        let answer = get(&world, path);
        assert_eq!(answer.status, 404, "{path}");
        assert!(!answer.body.contains("secret"), "{path}");
    }
    assert_eq!(world.ask("POST", "/icon.svg", &[], "").status, 405);
    let head = world.ask("HEAD", "/icon.svg", &[], "");
    assert_eq!((head.status, head.body.as_str()), (200, ""));
}

#[test]
fn people_have_pictures_without_anybody_elses_help() {
    let folder = packages();
    let world = World::with_pages(folder.path());
    let ann = get(&world, "/avatar?email=ann@example.org");
    assert_eq!((ann.status, ann.headers["content-type"].as_str()), (200, "image/svg+xml"));
    // The pages write the second parameter like this.
    assert_eq!(get(&world, "/avatar?username=ann&amp;email=ann@example.org").body, ann.body);
    assert_ne!(get(&world, "/avatar?email=bob@example.org").body, ann.body);
}

#[test]
fn without_pages_there_is_our_own_page_and_nothing_of_theirs() {
    let world = World::start();
    assert!(get(&world, "/").body.contains("<h2>Builders</h2>"));
    for path in ["/config", "/index.html", "/avatar?email=a"] {
        assert_eq!(get(&world, path).status, 404, "{path}");
    }
}

#[test]
fn a_folder_without_the_pages_is_refused_with_what_to_do() {
    let folder = packages();
    // The inner folder alone will do, too, and finds the plugins beside it.
    assert!(StockUi::read(&folder.path().join("buildbot_www/static")).is_ok());
    fs::remove_file(folder.path().join("buildbot_www/static/index.html")).unwrap();
    let error = StockUi::read(folder.path()).unwrap_err().to_string();
    assert!(error.contains("buildbot_www/static/index.html"), "{error}");
    assert!(error.contains("pip install --no-deps --target"), "{error}");
    assert!(StockUi::read(&folder.path().join("nope")).is_err());
}
