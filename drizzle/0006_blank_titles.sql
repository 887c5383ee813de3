-- PostgreSQL 15 reads `\v` in a string as the letter: a title of nothing but that letter was blank to it.
CREATE OR REPLACE FUNCTION "write_list"() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  broken text := CASE
    WHEN NOT (char_length(NEW.name) BETWEEN 1 AND 100) THEN 'lists_name_length'
    WHEN NOT (ltrim(NEW.name, E' \t\n\x0b\f\r') <> '') THEN 'lists_name_not_blank'
    WHEN NOT (char_length(NEW.position) <= 255) THEN 'lists_position_length'
  END;
BEGIN
  IF broken IS NOT NULL THEN
    RAISE EXCEPTION 'list % breaks constraint "%"', NEW.id, broken
      USING ERRCODE = 'check_violation', CONSTRAINT = broken;
  END IF;
  IF NEW.version <= OLD.version THEN
    RAISE EXCEPTION 'an update of list % keeps its version %: take the next one (update user_versions set last_version = last_version + 1 where user_id = ''%'' returning last_version) and set version to it', OLD.id, OLD.version, OLD.user_id;
  END IF;
  NEW.json := '{"id":' || '"' || NEW."id" || '"'
    || ',"name":' || to_json(NEW."name")::text
    || ',"position":' || to_json(NEW."position")::text
    || ',"created_at":' || to_char(NEW."created_at" at time zone 'UTC', '"\""YYYY-MM-DD"T"HH24:MI:SS.US"Z\""')
    || ',"updated_at":' || to_char(NEW."updated_at" at time zone 'UTC', '"\""YYYY-MM-DD"T"HH24:MI:SS.US"Z\""')
    || ',"version":' || NEW."version"::text || '}';
  RETURN NEW;
END
$$;
--> statement-breakpoint
CREATE OR REPLACE TRIGGER "lists_write" BEFORE INSERT OR UPDATE OF "id", "user_id", "name", "position", "created_at", "updated_at", "version", "request_hash" ON "lists"
  FOR EACH ROW EXECUTE FUNCTION "write_list"();
--> statement-breakpoint
CREATE OR REPLACE FUNCTION "write_task"() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  broken text := CASE
    WHEN NOT (char_length(NEW.title) between 1 and 200) THEN 'tasks_title_length'
    WHEN NOT (ltrim(NEW.title, E' \t\n\x0b\f\r') <> '') THEN 'tasks_title_not_blank'
    WHEN NOT (char_length(NEW.description) <= 2000) THEN 'tasks_description_length'
    WHEN NOT (NEW.status in ('pending', 'in_progress', 'completed')) THEN 'tasks_status_known'
    WHEN NOT (NEW.priority between 0 and 4) THEN 'tasks_priority_range'
    WHEN NOT (NEW.due_at >= '0001-01-01 00:00:00+00' and NEW.due_at < '10000-01-01 00:00:00+00') THEN 'tasks_due_at_range'
    WHEN NOT (cardinality(NEW.tags) <= 20) THEN 'tasks_tags_count'
    WHEN NOT (array_position(NEW.tags, null) is null and array_position(NEW.tags, '') is null and char_length(array_to_string(NEW.tags, '')) <= 1000) THEN 'tasks_tags_items'
    WHEN NOT (char_length(NEW.position) <= 255) THEN 'tasks_position_length'
    WHEN NOT ((NEW.status = 'completed') = (NEW.completed_at IS NOT NULL)) THEN 'tasks_completed_at_matches'
  END;
BEGIN
  IF broken IS NOT NULL THEN
    RAISE EXCEPTION 'task % breaks constraint "%"', NEW.id, broken
      USING ERRCODE = 'check_violation', CONSTRAINT = broken;
  END IF;
  IF NEW.version <= OLD.version THEN
    RAISE EXCEPTION 'an update of task % keeps its version %: take the next one (update user_versions set last_version = last_version + 1 where user_id = ''%'' returning last_version) and set version to it', OLD.id, OLD.version, OLD.user_id;
  END IF;
  NEW.json := '{"id":' || '"' || NEW."id" || '"'
    || ',"user_id":' || '"' || NEW."user_id" || '"'
    || ',"title":' || to_json(NEW."title")::text
    || ',"description":' || coalesce(to_json(NEW."description")::text, 'null')
    || ',"status":' || '"' || NEW."status" || '"'
    || ',"priority":' || NEW."priority"::text
    || ',"due_at":' || coalesce(to_char(NEW."due_at" at time zone 'UTC', '"\""YYYY-MM-DD"T"HH24:MI:SS.US"Z\""'), 'null')
    || ',"tags":' || case when NEW."tags" = '{}' then '[]' else array_to_json(NEW."tags")::text end
    || ',"list_id":' || coalesce('"' || NEW."list_id" || '"', 'null')
    || ',"parent_id":' || coalesce('"' || NEW."parent_id" || '"', 'null')
    || ',"position":' || to_json(NEW."position")::text
    || ',"completed_at":' || coalesce(to_char(NEW."completed_at" at time zone 'UTC', '"\""YYYY-MM-DD"T"HH24:MI:SS.US"Z\""'), 'null')
    || ',"created_at":' || to_char(NEW."created_at" at time zone 'UTC', '"\""YYYY-MM-DD"T"HH24:MI:SS.US"Z\""')
    || ',"updated_at":' || to_char(NEW."updated_at" at time zone 'UTC', '"\""YYYY-MM-DD"T"HH24:MI:SS.US"Z\""')
    || ',"version":' || NEW."version"::text || '}';
  RETURN NEW;
END
$$;
--> statement-breakpoint
CREATE OR REPLACE TRIGGER "tasks_write" BEFORE INSERT OR UPDATE OF "id", "user_id", "title", "description", "status", "priority", "due_at", "tags", "list_id", "parent_id", "position", "completed_at", "created_at", "updated_at", "version", "title_words", "description_words", "deleted_at", "request_hash" ON "tasks"
  FOR EACH ROW EXECUTE FUNCTION "write_task"();
