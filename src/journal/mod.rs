//! What the node has decided, written down before it acts.
