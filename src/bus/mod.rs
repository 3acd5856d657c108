//! NATS: jobs in, statuses out.
