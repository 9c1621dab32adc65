//! agent
mod connections;
mod devices;
mod folder;
mod memory;
