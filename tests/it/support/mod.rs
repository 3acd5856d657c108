//! The real parts, each started for one test or one process and ended on drop, and what several tests
//! share.

pub(crate) mod acceptor;
pub(crate) mod anvil;
pub(crate) mod bus;
pub(crate) mod contracts;
pub(crate) mod crafted;
pub(crate) mod engine;
pub(crate) mod http;
pub(crate) mod ipfs;
pub(crate) mod irc;
pub(crate) mod nats;
pub(crate) mod nats_auth;
pub(crate) mod nats_py;
pub(crate) mod network;
pub(crate) mod nvml;
pub(crate) mod odd_engine;
pub(crate) mod oracle;
pub(crate) mod program;
pub(crate) mod prometheus;
pub(crate) mod receiver;
pub(crate) mod redis;
pub(crate) mod registry;
pub(crate) mod rpc_proxy;
pub(crate) mod small_disk;
pub(crate) mod smtp;
pub(crate) mod speaker;
pub(crate) mod store_proxy;
pub(crate) mod tcp_proxy;
pub(crate) mod tools;
pub(crate) mod websocket;
pub(crate) mod world;
