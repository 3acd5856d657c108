//! The witness of a DHT, against stand-ins that say what a real Hivemind node once said, and against such as lie; and
//! against real nodes in `real`.

mod hostile;
pub(crate) mod real;
mod recorded;
pub(crate) mod stand_in;
