//! Channels over which people are told: one module each. The only place that knows their forms.
