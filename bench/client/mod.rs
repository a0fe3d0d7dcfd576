//! The HTTP load client.

pub mod connection;
pub mod figures;
pub mod load;
pub mod options;
