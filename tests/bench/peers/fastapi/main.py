"""The usual FastAPI service: SQLModel tables, a session per request, OAuth2 bearer tokens, Pydantic answers.

It verifies the token and loads the user for each request, as the framework's own tutorial teaches it, and answers with
the same tasks as the other peers.
"""

import os
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Annotated
from uuid import UUID, uuid4

import bcrypt
from fastapi import Depends, FastAPI, HTTPException, Query, status
from fastapi.middleware.cors import CORSMiddleware
from fastapi.security import OAuth2PasswordBearer, OAuth2PasswordRequestForm
from jose import JWTError, jwt
from pydantic import BaseModel
from sqlalchemy import ARRAY, BigInteger, Column, DateTime, SmallInteger, Text, text
from sqlmodel import Field, Session, SQLModel, create_engine, select

SECRET_KEY = os.environ["SECRET_KEY"]
ALGORITHM = "HS256"

engine = create_engine(
    os.environ["DATABASE_URL"].replace("postgres://", "postgresql+psycopg2://", 1),
    pool_size=10,
    max_overflow=20,
    pool_pre_ping=True,
)


def utc_now() -> datetime:
    return datetime.now(timezone.utc)


def moment(**options) -> Column:
    return Column(DateTime(timezone=True), **options)


class User(SQLModel, table=True):
    __tablename__ = "users"
    id: UUID = Field(primary_key=True)
    email: str
    normalized_email: str
    password_hash: str


class Task(SQLModel, table=True):
    __tablename__ = "tasks"
    id: UUID = Field(default_factory=uuid4, primary_key=True)
    user_id: UUID
    title: str
    description: str | None = None
    status: str = "pending"
    priority: int = Field(default=0, sa_column=Column(SmallInteger))
    due_at: datetime | None = Field(default=None, sa_column=moment())
    tags: list[str] = Field(default_factory=list, sa_column=Column(ARRAY(Text)))
    list_id: UUID | None = None
    parent_id: UUID | None = None
    position: str = ""
    completed_at: datetime | None = Field(default=None, sa_column=moment())
    created_at: datetime = Field(default_factory=utc_now, sa_column=moment())
    updated_at: datetime = Field(default_factory=utc_now, sa_column=moment())
    version: int = Field(default=1, sa_column=Column(BigInteger))
    deleted_at: datetime | None = Field(default=None, sa_column=moment())


class TaskCreate(BaseModel):
    title: str
    description: str | None = None
    priority: int = 0
    tags: list[str] = []


class TaskUpdate(BaseModel):
    title: str | None = None
    description: str | None = None
    status: str | None = None


class TaskOut(BaseModel):
    model_config = {"from_attributes": True}
    id: UUID
    user_id: UUID
    title: str
    description: str | None
    status: str
    priority: int
    due_at: datetime | None
    tags: list[str]
    list_id: UUID | None
    parent_id: UUID | None
    position: str
    completed_at: datetime | None
    created_at: datetime
    updated_at: datetime
    version: int


class Token(BaseModel):
    access_token: str
    token_type: str = "bearer"


def open_session() -> Iterator[Session]:
    with Session(engine) as session:
        yield session


bearer = OAuth2PasswordBearer(tokenUrl="/api/v1/auth/login")
Database = Annotated[Session, Depends(open_session)]


def load_user(session: Database, token: Annotated[str, Depends(bearer)]) -> User:
    try:
        user_id = UUID(jwt.decode(token, SECRET_KEY, algorithms=[ALGORITHM])["sub"])
    except (JWTError, KeyError, ValueError):
        user_id = None
    user = user_id and session.get(User, user_id)
    if not user:
        raise HTTPException(status.HTTP_401_UNAUTHORIZED, "Could not validate credentials")
    return user


CurrentUser = Annotated[User, Depends(load_user)]


def load_task(session: Session, user: User, task_id: UUID) -> Task:
    task = session.get(Task, task_id)
    if not task or task.deleted_at:
        raise HTTPException(status.HTTP_404_NOT_FOUND, "Task not found")
    if task.user_id != user.id:
        raise HTTPException(status.HTTP_403_FORBIDDEN, "Not authorized")
    return task


def next_version(session: Session, user: User) -> int:
    statement = text("update user_versions set last_version = last_version + 1 where user_id = :user returning last_version")
    return session.execute(statement, {"user": user.id}).scalar_one()


app = FastAPI(title="Todo API")
app.add_middleware(
    CORSMiddleware,
    allow_origins=["http://localhost:3000"],
    allow_credentials=True,
    allow_methods=["*"],
    allow_headers=["*"],
)


@app.get("/health")
def health():
    return {"status": "healthy"}


@app.post("/api/v1/auth/login", response_model=Token)
def login(session: Database, form: Annotated[OAuth2PasswordRequestForm, Depends()]):
    user = session.exec(select(User).where(User.normalized_email == form.username.lower())).first()
    if not user or not bcrypt.checkpw(form.password.encode(), user.password_hash.encode()):
        raise HTTPException(status.HTTP_401_UNAUTHORIZED, "Incorrect email or password")
    claims = {"sub": str(user.id), "exp": utc_now() + timedelta(days=1)}
    return Token(access_token=jwt.encode(claims, SECRET_KEY, algorithm=ALGORITHM))


@app.get("/api/v1/tasks", response_model=list[TaskOut])
def list_tasks(session: Database, user: CurrentUser, limit: Annotated[int, Query(ge=1, le=200)] = 50):
    statement = (
        select(Task)
        .where(Task.user_id == user.id, Task.deleted_at.is_(None))
        .order_by(Task.created_at.desc(), Task.id.desc())
        .limit(limit)
    )
    return session.exec(statement).all()


@app.post("/api/v1/tasks", response_model=TaskOut, status_code=status.HTTP_201_CREATED)
def create_task(session: Database, user: CurrentUser, body: TaskCreate):
    task = Task(**body.model_dump(), user_id=user.id, version=next_version(session, user))
    session.add(task)
    session.commit()
    session.refresh(task)
    return task


@app.get("/api/v1/tasks/{task_id}", response_model=TaskOut)
def read_task(session: Database, user: CurrentUser, task_id: UUID):
    return load_task(session, user, task_id)


@app.patch("/api/v1/tasks/{task_id}", response_model=TaskOut)
def update_task(session: Database, user: CurrentUser, task_id: UUID, body: TaskUpdate):
    task = load_task(session, user, task_id)
    for name, value in body.model_dump(exclude_unset=True).items():
        setattr(task, name, value)
    task.version = next_version(session, user)
    task.updated_at = utc_now()
    session.add(task)
    session.commit()
    session.refresh(task)
    return task
