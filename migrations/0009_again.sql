-- 2: asked for once more while it was on its way for the second time (also `outbox.sent` 3 and 4: it is
-- to be said once more after what is on its way).
DROP INDEX done_again;
CREATE INDEX done_again ON done (id) WHERE again > 0;
