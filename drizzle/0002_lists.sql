CREATE FUNCTION "list_json"(
  "id" uuid, "name" text, "position" text, "created_at" timestamp with time zone, "updated_at" timestamp with time zone, "version" bigint
) RETURNS text LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
declare
  moment constant text := '"\""YYYY-MM-DD"T"HH24:MI:SS.US"Z\""';
begin
  return '{"id":' || '"' || "id" || '"'
    || ',"name":' || to_json("name")::text
    || ',"position":' || to_json("position")::text
    || ',"created_at":' || to_char("created_at" at time zone 'UTC', moment)
    || ',"updated_at":' || to_char("updated_at" at time zone 'UTC', moment)
    || ',"version":' || "version"::text || '}';
end $$;
--> statement-breakpoint
CREATE FUNCTION "task_json"(
  "id" uuid, "user_id" uuid, "title" text, "description" text, "status" text, "priority" smallint, "due_at" timestamp with time zone, "tags" text[], "list_id" uuid, "parent_id" uuid, "position" text, "completed_at" timestamp with time zone, "created_at" timestamp with time zone, "updated_at" timestamp with time zone, "version" bigint
) RETURNS text LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
declare
  moment constant text := '"\""YYYY-MM-DD"T"HH24:MI:SS.US"Z\""';
begin
  return '{"id":' || '"' || "id" || '"'
    || ',"user_id":' || '"' || "user_id" || '"'
    || ',"title":' || to_json("title")::text
    || ',"description":' || coalesce(to_json("description")::text, 'null')
    || ',"status":' || '"' || "status" || '"'
    || ',"priority":' || "priority"::text
    || ',"due_at":' || coalesce(to_char("due_at" at time zone 'UTC', moment), 'null')
    || ',"tags":' || case when "tags" = '{}' then '[]' else array_to_json("tags")::text end
    || ',"list_id":' || coalesce('"' || "list_id" || '"', 'null')
    || ',"parent_id":' || coalesce('"' || "parent_id" || '"', 'null')
    || ',"position":' || to_json("position")::text
    || ',"completed_at":' || coalesce(to_char("completed_at" at time zone 'UTC', moment), 'null')
    || ',"created_at":' || to_char("created_at" at time zone 'UTC', moment)
    || ',"updated_at":' || to_char("updated_at" at time zone 'UTC', moment)
    || ',"version":' || "version"::text || '}';
end $$;
--> statement-breakpoint
CREATE TABLE "list_tombstones" (
	"id" uuid NOT NULL,
	"user_id" uuid NOT NULL,
	"version" bigint NOT NULL,
	"deleted_at" timestamp with time zone NOT NULL,
	CONSTRAINT "list_tombstones_pkey" PRIMARY KEY("id","user_id")
);
--> statement-breakpoint
CREATE TABLE "lists" (
	"id" uuid NOT NULL,
	"user_id" uuid NOT NULL,
	"name" text NOT NULL,
	"position" text COLLATE "C" DEFAULT '' NOT NULL,
	"created_at" timestamp with time zone DEFAULT now() NOT NULL,
	"updated_at" timestamp with time zone DEFAULT now() NOT NULL,
	"version" bigint NOT NULL,
	"request_hash" text,
	"json" text GENERATED ALWAYS AS (list_json(id, name, position, created_at, updated_at, version)) STORED NOT NULL,
	CONSTRAINT "lists_pkey" PRIMARY KEY("id","user_id"),
	CONSTRAINT "lists_name_length" CHECK (char_length("lists"."name") between 1 and 100),
	CONSTRAINT "lists_name_not_blank" CHECK (ltrim("lists"."name", E' \t\n\v\f\r') <> ''),
	CONSTRAINT "lists_position_length" CHECK (char_length("lists"."position") <= 255)
);
--> statement-breakpoint
-- Allowed: name and type stay, and old replicas wait.
ALTER TABLE "tasks" drop column "json";
--> statement-breakpoint
ALTER TABLE "tasks" ADD COLUMN "list_id" uuid;
--> statement-breakpoint
ALTER TABLE "tasks" ADD COLUMN "parent_id" uuid;
--> statement-breakpoint
ALTER TABLE "list_tombstones" ADD CONSTRAINT "list_tombstones_user_fk" FOREIGN KEY ("user_id") REFERENCES "public"."user_versions"("user_id") ON DELETE cascade ON UPDATE no action;
--> statement-breakpoint
ALTER TABLE "lists" ADD CONSTRAINT "lists_user_fk" FOREIGN KEY ("user_id") REFERENCES "public"."user_versions"("user_id") ON DELETE cascade ON UPDATE no action;
--> statement-breakpoint
CREATE INDEX "list_tombstones_feed" ON "list_tombstones" USING btree ("user_id","version");
--> statement-breakpoint
CREATE INDEX "list_tombstones_age" ON "list_tombstones" USING btree ("deleted_at");
--> statement-breakpoint
CREATE UNIQUE INDEX "lists_feed" ON "lists" USING btree ("user_id","version");
--> statement-breakpoint
ALTER TABLE "tasks" ADD CONSTRAINT "tasks_list_fk" FOREIGN KEY ("list_id","user_id") REFERENCES "public"."lists"("id","user_id") ON DELETE no action ON UPDATE no action NOT VALID;
--> statement-breakpoint
CREATE INDEX "tasks_list" ON "tasks" USING btree ("user_id","list_id","created_at","id") WHERE "tasks"."list_id" is not null;
--> statement-breakpoint
CREATE INDEX "tasks_children" ON "tasks" USING btree ("user_id","parent_id") WHERE "tasks"."parent_id" is not null;
--> statement-breakpoint
-- Allowed: name and type stay, and old replicas wait.
ALTER TABLE "tasks" ADD COLUMN "json" text GENERATED ALWAYS AS (task_json(id, user_id, title, description, status, priority, due_at, tags, list_id, parent_id, position, completed_at, created_at, updated_at, version)) STORED NOT NULL;
--> statement-breakpoint
-- Allowed: nothing calls it any more.
DROP FUNCTION "task_json"(uuid, uuid, text, text, text, smallint, timestamp with time zone, text[], text, timestamp with time zone, timestamp with time zone, timestamp with time zone, bigint);
--> statement-breakpoint
CREATE OR REPLACE FUNCTION "require_new_version"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'an update of % % keeps its version %: take the next one (update user_versions set last_version = last_version + 1 where user_id = ''%'' returning last_version) and set version to it', rtrim(TG_TABLE_NAME, 's'), OLD.id, OLD.version, OLD.user_id;
END
$$;
--> statement-breakpoint
CREATE TRIGGER "lists_require_new_version" AFTER UPDATE ON "lists" FOR EACH ROW WHEN (NEW.version <= OLD.version)
  EXECUTE FUNCTION "require_new_version"();
--> statement-breakpoint
CREATE FUNCTION "check_parent"() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  broken text;
BEGIN
  EXECUTE format('
    SELECT CASE
      WHEN count(*) FILTER (WHERE id = $2) = 0 THEN ''tasks_parent_found''
      WHEN bool_or(id = $2 AND parent_id IS NOT NULL) OR bool_or(parent_id = $1) THEN ''tasks_parent_nested''
      WHEN count(*) FILTER (WHERE parent_id = $2) > %s THEN ''tasks_children_count''
    END
    FROM %s WHERE user_id = $3 AND deleted_at IS NULL AND (id = $2 OR parent_id IN ($1, $2))',
    200, TG_RELID::regclass) INTO broken USING NEW.id, NEW.parent_id, NEW.user_id;
  IF broken IS NOT NULL THEN
    RAISE EXCEPTION 'task % breaks constraint "%"', NEW.id, broken
      USING ERRCODE = 'check_violation', CONSTRAINT = broken;
  END IF;
  RETURN NULL;
END
$$;
--> statement-breakpoint
CREATE TRIGGER "tasks_new_parent" AFTER INSERT ON "tasks" FOR EACH ROW
  WHEN (NEW.parent_id IS NOT NULL AND NEW.deleted_at IS NULL) EXECUTE FUNCTION "check_parent"();
--> statement-breakpoint
CREATE TRIGGER "tasks_other_parent" AFTER UPDATE OF "parent_id", "deleted_at" ON "tasks" FOR EACH ROW
  WHEN (NEW.parent_id IS NOT NULL AND NEW.deleted_at IS NULL AND (NEW.parent_id IS DISTINCT FROM OLD.parent_id OR OLD.deleted_at IS NOT NULL))
  EXECUTE FUNCTION "check_parent"();
--> statement-breakpoint
ALTER TABLE "tasks"
  ALTER COLUMN "description" SET STORAGE EXTERNAL,
  ALTER COLUMN "title_words" SET STORAGE EXTERNAL,
  ALTER COLUMN "description_words" SET STORAGE EXTERNAL,
  ALTER COLUMN "json" SET STORAGE EXTERNAL;
