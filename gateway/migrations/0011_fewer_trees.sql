-- What comes in is written to as few trees as will do: each costs the one writer.

-- A small body is found by its row, which its upload names, and needs no index.
create table contents (
	row     integer primary key,
	upload  blob not null, -- a row's number may be given anew
	content blob not null
) strict;

alter table uploads add column body_row integer; -- of contents; null if the body is not there

insert into contents (row, upload, content) select rowid, upload, content from bodies order by rowid;
update uploads set body_row = (select rowid from bodies where upload = uploads.id) where body = 'row';
drop table bodies;

-- Jobs of a name are found by two indexes, of which one is hardly ever written to: of
-- several all but one are parked. That there is an upload is not looked up for each.
create table tasks (
	upload   blob    not null primary key,
	lane     text    not null default 'default',
	name     text    not null,
	parked   integer not null,
	due_at   integer not null,
	leased   integer not null default 0,
	fence    integer not null,           -- the attempt's number; what a worker writes names its own
	failures integer not null default 0, -- in a row
	network  integer not null default 0, -- whether the last of them was the network's
	cancel   integer not null default 0, -- whether somebody asked for it to be cancelled
	held     integer not null default 0  -- has the last due_at there is, so that claiming passes it over
) strict, without rowid;

insert into tasks (upload, lane, name, parked, due_at, leased, fence, failures, network, cancel, held)
	select upload, lane, name, parked, due_at, leased, fence, failures, network, cancel, held from jobs;
drop table jobs;
alter table tasks rename to jobs;

create index jobs_due on jobs (lane, due_at, upload) where parked = 0;
create unique index jobs_first_of_name on jobs (lane, name) where parked = 0;
create index jobs_parked on jobs (lane, name, upload) where parked = 1;
