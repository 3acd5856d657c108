//! Who is told what and when: incidents, decided from what holds now and what was told before.
