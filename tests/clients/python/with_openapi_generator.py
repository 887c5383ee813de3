import datetime

import openapi_client
from openapi_client.exceptions import ApiException


def reply(call, *args, **kwargs):
    try:
        response = call(*args, **kwargs)
        status, headers, data = response.status_code, response.headers, response.data
    except ApiException as error:
        status, headers, data = error.status, error.headers, error.data
    return status, {name.lower(): value for name, value in headers.items()}, data


class Client:
    def __init__(self, url):
        self.configuration = openapi_client.Configuration(host=url)
        client = openapi_client.ApiClient(self.configuration)
        self.auth, self.tasks = openapi_client.AuthApi(client), openapi_client.TasksApi(client)

    def authorize(self, token):
        self.configuration.access_token = token

    def register(self, email, password):
        # The model checks the length itself: a short password has to get past it.
        body = openapi_client.Registration.model_construct(email=email, password=password)
        return reply(self.auth.register_with_http_info, body)

    def sign_in(self, username, password):
        return reply(self.auth.login_with_http_info, username=username, password=password)

    def refresh(self, token):
        return reply(self.auth.refresh_with_http_info, refresh_token=token)

    def create(self, title, tags):
        due_at = datetime.datetime(2099, 1, 31, 18, tzinfo=datetime.timezone.utc)
        body = openapi_client.TaskCreate(title=title, due_at=due_at, tags=tags)
        return reply(self.tasks.create_task_with_http_info, body)

    def read(self, id, if_none_match=None):
        return reply(self.tasks.read_task_with_http_info, id, if_none_match=if_none_match)

    def complete(self, id, if_match):
        body = openapi_client.TaskUpdate(status="completed")
        return reply(self.tasks.update_task_with_http_info, id, body, if_match=if_match)

    def list(self, **query):
        return reply(self.tasks.list_tasks_with_http_info, **query)

    def batch(self, title, outdated, invalid):
        """A creation, a change of an outdated version and the deletion of an id that is none, each on its own."""
        operations = [
            openapi_client.CreateOperation(op="create", task=openapi_client.TaskCreate(title=title)),
            openapi_client.UpdateOperation(
                op="update", id=outdated, version=1, task=openapi_client.TaskUpdate(title=title)
            ),
            openapi_client.DeleteOperation(op="delete", id=invalid),
        ]
        body = openapi_client.Batch(atomic=False, operations=[openapi_client.Operation(one) for one in operations])
        return reply(self.tasks.batch_tasks_with_http_info, body)

    def remove(self, id):
        return reply(self.tasks.delete_task_with_http_info, id)
