-- Every change of an upload that others may follow has a number, in the order of the
-- commits; an upload has that of its last one.
alter table uploads add column changed integer not null default 0;

create index uploads_by_change on uploads (changed);

-- What was forgotten lately.
create table forgotten (
	changed integer not null primary key,
	upload  blob    not null,
	token   text                           -- the name of the token that it was sent with
) strict;
