-- Clients are registered once. files counts their rows in the table of that
-- name, kept in the same transaction.
create table clients (
	id            blob    not null primary key,
	name          text    not null unique, -- also their folder's
	public_key    blob    not null,
	registered_at integer not null,        -- times are milliseconds since 1970, UTC
	last_seen     integer not null,
	files         integer not null default 0
) strict;

create table files (
	client    blob    not null references clients (id),
	name      text    not null,
	size      integer not null,
	cksum     integer not null,
	sha256    blob    not null,
	stored_at integer not null,
	primary key (client, name)
) strict, without rowid;
