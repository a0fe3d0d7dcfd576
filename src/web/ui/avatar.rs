//! Pictures for people, drawn here: no e-mail address leaves this server.

use actix_web::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use actix_web::{HttpRequest, HttpResponse};
use sha2::{Digest, Sha256};

use crate::web::query;

/// Squares in a row and in a column of the picture.
const SQUARES: usize = 5;

/// The value of the first parameter with one of these names.
fn value<'a>(pairs: &'a [(String, String)], names: &[&str]) -> Option<&'a str> {
    let found =
        pairs.iter().find(|(name, value)| names.contains(&name.as_str()) && !value.is_empty());
    found.map(|(_, value)| value.as_str())
}

/// The picture of one person: five by five squares, the left half the mirror
/// of the right one, in a colour of its own.
fn picture(who: &str) -> String {
    let digest = Sha256::digest(who.trim().to_lowercase().as_bytes());
    let mut bytes = digest.iter().copied();
    let hue = u32::from(bytes.next().unwrap_or_default()) * 360 / 256;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {SQUARES} {SQUARES}\" \
         shape-rendering=\"crispEdges\"><rect width=\"{SQUARES}\" height=\"{SQUARES}\" \
         fill=\"#eee\"/><g fill=\"hsl({hue} 55% 45%)\">"
    );
    for row in 0..SQUARES {
        for column in 0..SQUARES.div_ceil(2) {
            if bytes.next().unwrap_or_default() % 2 == 0 {
                continue;
            }
            let mut columns = vec![column, SQUARES - 1 - column];
            columns.dedup();
            for at in columns {
                svg.push_str(&format!("<rect x=\"{at}\" y=\"{row}\" width=\"1\" height=\"1\"/>"));
            }
        }
    }
    svg.push_str("</g></svg>");
    svg
}

/// Serves `/avatar?email=…`. The pages write `&amp;email=` for the second
/// parameter, so that name is known too.
pub fn draw(request: &HttpRequest) -> HttpResponse {
    let pairs = query::pairs(request.query_string()).unwrap_or_default();
    let who = value(&pairs, &["email", "amp;email"]).or_else(|| value(&pairs, &["username"]));
    HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, "image/svg+xml"))
        .insert_header((CACHE_CONTROL, "public,max-age=86400"))
        .insert_header((CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'"))
        .body(picture(who.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_always_has_the_same_picture_and_others_have_another() {
        assert_eq!(picture("Ann@example.org"), picture("ann@example.org "));
        assert_ne!(picture("ann@example.org"), picture("bob@example.org"));
        assert!(!picture("<script>").contains("script"));
    }
}
