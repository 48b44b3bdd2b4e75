//! CLI

