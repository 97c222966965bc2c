-- A job that is held has the last due_at there is, so that claiming passes it over
-- without looking at this.
alter table jobs add column held integer not null default 0;
