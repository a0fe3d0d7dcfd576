//! Rows of the fault matrix on the real program.
