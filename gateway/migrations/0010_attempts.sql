-- How attempts to deliver an upload ended: of many, the first ones and the latest.
-- Of an upload that was delivered by its only attempt there is none: it says all of
-- that itself.
create table attempts (
	upload      blob    not null references uploads (id),
	number      integer not null,
	began_at    integer not null,
	ended_at    integer not null,
	outcome     text    not null check (outcome in ('delivered', 'failed', 'postponed', 'cancelled', 'interrupted')),
	error       text,             -- in words
	bytes       integer,          -- what the destination had of the file then; null, with the next two, if nobody knows
	resumed     integer,          -- of these, what it had from before
	sends       integer,          -- how often the file was begun
	destination text    not null, -- its URL
	primary key (upload, number)
) strict, without rowid;

-- When the last attempt began; null if that was not noted.
alter table uploads add column attempted_at integer;
