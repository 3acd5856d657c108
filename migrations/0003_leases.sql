-- When a pool's job was last confirmed to be this node's: after a restart its lease is as old as it
-- is. Absent for refusals and for what was taken before.
ALTER TABLE jobs ADD COLUMN renewed_ms INTEGER;
