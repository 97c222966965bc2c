-- Ids are ULIDs, 16 bytes; times are microseconds since 1970, UTC.
create table uploads (
	id           blob    not null primary key,
	name         text    not null,
	size         integer not null,
	sha256       blob    not null,
	cksum        integer not null,
	state        text    not null check (state in ('queued', 'delivering', 'waiting', 'delivered', 'failed', 'cancelled')),
	body         text    not null check (body in ('row', 'file', 'gone')), -- where its bytes are
	attempts     integer not null default 0,
	packets      integer not null default 0, -- of the whole file; 0 until an attempt has counted them
	last_error   text,
	error        text,
	destination  text,                       -- where it was delivered to
	created_at   integer not null,
	updated_at   integer not null,
	delivered_at integer
) strict, without rowid;

create index uploads_in_files on uploads (id) where body = 'file';

-- Small bodies; the others are files of the spool.
create table bodies (
	upload  blob not null primary key references uploads (id),
	content blob not null
) strict;

-- What is to be done: an upload that is final has no job. One that waits behind
-- another job of its name is parked, so that there is at most one job of a name
-- that may be claimed. While a worker has it, due_at is when its lease ends.
create table jobs (
	upload   blob    not null primary key references uploads (id),
	name     text    not null,
	parked   integer not null,
	due_at   integer not null,
	leased   integer not null default 0,
	fence    integer not null,           -- the attempt's number; what a worker writes names its own
	failures integer not null default 0, -- in a row
	network  integer not null default 0, -- whether the last of them was the network's
	cancel   integer not null default 0  -- whether somebody asked for it to be cancelled
) strict, without rowid;

create index jobs_due on jobs (due_at, upload) where parked = 0;
create unique index jobs_first_of_name on jobs (name) where parked = 0;
create index jobs_by_name on jobs (name, upload);

-- What the destination holds under which name, as far as is known here. It
-- outlives the uploads. client is what the destination calls this gateway, and
-- so another one after the destination, or what it knows, was replaced.
create table stored (
	client    blob    not null,
	name      text    not null,
	sha256    blob    not null,
	confirmed integer not null, -- 0: the checksums matched, and no acknowledgement has come yet
	noted_at  integer not null,
	primary key (client, name)
) strict, without rowid;
