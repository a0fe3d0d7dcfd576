//! Parts of the load process: `agent` decides, `link` carries.

pub mod agent;
pub mod exec_log;
pub mod link;
pub mod options;
pub mod text;
