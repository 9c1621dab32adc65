//! The packet decision.
#![no_std]
