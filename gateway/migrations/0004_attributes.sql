-- What a file was where it came from, null if nobody said: its permission bits,
-- and when it was changed last, in nanoseconds since 1970, UTC.
alter table uploads add column mode integer;
alter table uploads add column modified integer;

-- What was delivered under a name. Of what is on its way to be, jobs_by_name
-- knows.
create index uploads_delivered_by_name on uploads (name, destination) where state = 'delivered';
