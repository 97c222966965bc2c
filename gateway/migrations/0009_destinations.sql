-- Where uploads are delivered to, by the names that the operator gives. A row
-- outlives its destination's flag: uploads may wait for it.
create table destinations (
	name       text    not null primary key,
	url        text    not null,           -- as it was configured last
	paused     integer not null default 0,
	failing    integer not null default 0, -- whether the last attempt that told of it went wrong
	last_error text,                       -- in words
	failed_at  integer                     -- when that was
) strict, without rowid;

-- The name of an upload's destination. Until now there was one, called default;
-- uploads.destination has the URL of where an upload was delivered to.
alter table uploads add column lane text not null default 'default';
alter table jobs add column lane text not null default 'default';
alter table forgotten add column lane text not null default 'default';

create index uploads_by_lane on uploads (lane, id);

insert into destinations (name, url) select 'default', '' where exists (select 1 from uploads);

-- What waits for one destination is in nobody's way to another one.
drop index jobs_due;
drop index jobs_first_of_name;
drop index jobs_by_name;
create index jobs_due on jobs (lane, due_at, upload) where parked = 0;
create unique index jobs_first_of_name on jobs (lane, name) where parked = 0;
create index jobs_by_name on jobs (lane, name, upload);

-- The only destination that a token is good for; null if it is for all.
alter table tokens add column lane text;
