-- Somebody wants the build stopped, and why. Written before anybody is told
-- that it will be, so that whoever looks after the build next knows it too.

ALTER TABLE builds ADD COLUMN stop_reason TEXT;
