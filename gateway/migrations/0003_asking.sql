-- What whoever sent an upload said of it: a JSON object of strings, as it is
-- shown; null if nothing was said.
alter table uploads add column labels text;

-- The same, to find uploads by.
create table labels (
	key    text not null,
	value  text not null,
	upload blob not null,
	primary key (key, value, upload)
) strict, without rowid;

-- A list is in the order of the ids, or of the names: each filter that may
-- leave little of many has an index in that order.
create index uploads_by_state on uploads (state, id);
create index uploads_by_destination on uploads (destination, id);
create index uploads_by_sha256 on uploads (sha256, id);
create index uploads_by_name on uploads (name, id);
