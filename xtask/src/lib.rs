//! What keeps the house in order: who knows whom, what a file may be like, and what is written
//! twice. See ARCHITECTURE.md, "Order is a test".

pub mod arguments;
pub mod circles;
pub mod fault;
mod files;
pub mod floors;
pub mod house;
mod includes;
pub mod known;
pub mod named;
pub mod order;
mod read;
mod resolve;
pub mod table;
pub mod tidy;
pub mod tree;
