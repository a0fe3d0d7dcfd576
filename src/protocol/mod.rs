//! The wire, apart from behaviour: bytes to frames and back. No sockets, no
//! actors. One folder a protocol; today there is one.

pub mod json_v1;
