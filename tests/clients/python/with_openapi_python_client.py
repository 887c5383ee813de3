import datetime

from todo_client import AuthenticatedClient
from todo_client import Client as Anonymous
from todo_client.api.auth import login, refresh, register
from todo_client.api.tasks import batch_tasks, create_task, delete_task, list_tasks, read_task, update_task
from todo_client.models import (
    Batch,
    CreateOperation,
    DeleteOperation,
    ListTasksStatusItem,
    Login,
    Refresh,
    Registration,
    TaskCreate,
    TaskUpdate,
    TaskUpdateStatus,
    UpdateOperation,
)
from todo_client.types import UNSET


def reply(response):
    return int(response.status_code), response.headers, response.parsed


class Client:
    def __init__(self, url):
        self.url = url
        self.anonymous = Anonymous(base_url=url)

    def authorize(self, token):
        self.client = AuthenticatedClient(base_url=self.url, token=token)

    def register(self, email, password):
        return reply(register.sync_detailed(client=self.anonymous, body=Registration(email=email, password=password)))

    def sign_in(self, username, password):
        return reply(login.sync_detailed(client=self.anonymous, body=Login(username=username, password=password)))

    def refresh(self, token):
        return reply(refresh.sync_detailed(client=self.anonymous, body=Refresh(refresh_token=token)))

    def create(self, title, tags):
        due_at = datetime.datetime(2099, 1, 31, 18, tzinfo=datetime.timezone.utc)
        return reply(
            create_task.sync_detailed(client=self.client, body=TaskCreate(title=title, due_at=due_at, tags=tags))
        )

    def read(self, id, if_none_match=UNSET):
        return reply(read_task.sync_detailed(id, client=self.client, if_none_match=if_none_match))

    def complete(self, id, if_match):
        body = TaskUpdate(status=TaskUpdateStatus.COMPLETED)
        return reply(update_task.sync_detailed(id, client=self.client, body=body, if_match=if_match))

    def list(self, status, **query):
        status = [ListTasksStatusItem(one) for one in status]
        return reply(list_tasks.sync_detailed(client=self.client, status=status, **query))

    def batch(self, title, outdated, invalid):
        """A creation, a change of an outdated version and the deletion of an id that is none, each on its own."""
        operations = [
            CreateOperation(op="create", task=TaskCreate(title=title)),
            UpdateOperation(op="update", id=outdated, version=1, task=TaskUpdate(title=title)),
            DeleteOperation(op="delete", id=invalid),
        ]
        return reply(batch_tasks.sync_detailed(client=self.client, body=Batch(atomic=False, operations=operations)))

    def remove(self, id):
        return reply(delete_task.sync_detailed(id, client=self.client))
