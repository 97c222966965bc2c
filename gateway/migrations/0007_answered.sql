-- What requests with an Idempotency-Key were answered with.
create table answered (
	sender     text    not null, -- the name of the token; '' without one
	key        text    not null,
	request    blob    not null, -- SHA-256 of the method and the address
	content    blob    not null, -- SHA-256 of what was in the body
	file       text,             -- SHA-256 of the file, in hexadecimal digits; null of a form
	status     integer not null,
	location   text    not null,
	body       blob    not null,
	created_at integer not null,
	primary key (sender, key)
) strict, without rowid;

create index answered_by_time on answered (created_at);
