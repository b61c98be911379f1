# Every verb of this repository. INVENTORY chooses the site: make site INVENTORY=inventories/production
# EXTRA is handed to ansible-playbook: make site EXTRA='--check --diff'
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
INVENTORY ?= inventories/lab
EXTRA ?=
VENV := .venv/bin
PLAYBOOK := $(VENV)/ansible-playbook -i $(INVENTORY) $(EXTRA)
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg
export PATH := $(CURDIR)/$(VENV):$(PATH)

.PHONY: help
help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 24

.PHONY: setup
setup: ## the controller's tools, in .venv
	@tools/setup

# --- the lab -------------------------------------------------------------------------------------------------------------
.PHONY: demo demo-down lab-up
demo: ## five nodes on this machine, converged; prints address, users and health
	@lab/demo $(INVENTORY)
demo-down: setup ## removes the lab's nodes, network and state
	@tools/docker-engine start
	@$(PLAYBOOK) lab/destroy.yml
lab-up: setup ## only the lab's nodes, bare
	@tools/docker-engine start
	@$(PLAYBOOK) lab/create.yml

# --- the site ------------------------------------------------------------------------------------------------------------
.PHONY: inventory secrets build site upgrade rollback restart switchover-app switchover-db replace-etcd-member os-updates postgresql-upgrade health drift organization manage reshard uploads-to-s3 \
    backup backups restore restore-drill import-backup
inventory: ## an inventory of your own: make inventory NAME=production DIR=~/zulip
	@tools/inventory "$(NAME)" "$(DIR)"
secrets: setup ## fills what is missing in the inventory's vault
	@$(PLAYBOOK) playbooks/secrets.yml
build: setup ## the release's artefact, on the builder
	@$(PLAYBOOK) playbooks/build.yml
site: setup ## converges everything
	@$(PLAYBOOK) site.yml
upgrade: setup ## a new release, without a failed request
	@$(PLAYBOOK) playbooks/upgrade.yml
rollback: setup ## the release before, the same way
	@$(PLAYBOOK) playbooks/rollback.yml
restart: setup ## the application's processes, one host after the other
	@$(PLAYBOOK) playbooks/restart.yml
switchover-app: setup ## another app host becomes the active one
	@$(PLAYBOOK) playbooks/switchover_app.yml
switchover-db: setup ## another database host leads
	@$(PLAYBOOK) playbooks/switchover_db.yml
replace-etcd-member: setup ## a voter with broken data joins anew: make replace-etcd-member EXTRA='-e member=db2'
	@$(PLAYBOOK) playbooks/replace_etcd_member.yml
os-updates: setup ## Debian's updates, one host after the other
	@$(PLAYBOOK) playbooks/os_updates.yml
postgresql-upgrade: setup ## another major version of PostgreSQL: make postgresql-upgrade EXTRA='-e to=17'
	@$(PLAYBOOK) playbooks/postgresql_upgrade.yml
health: setup ## the health table; fails when something is wrong
	@$(PLAYBOOK) playbooks/health.yml
drift: setup ## what was edited by hand on the hosts
	@$(PLAYBOOK) playbooks/drift.yml

organization: setup ## the first organisation and its owner
	@$(PLAYBOOK) playbooks/organization.yml
manage: setup ## a management command on the active app host: make manage COMMAND='list_realms'
	@$(PLAYBOOK) playbooks/manage.yml
reshard: setup ## brings Tornado to the shards of the inventory
	@$(PLAYBOOK) playbooks/reshard.yml
uploads-to-s3: setup ## copies uploads to S3, in two passes
	@$(PLAYBOOK) playbooks/uploads_to_s3.yml

# Of what, to when, and the site's name in EXTRA: make restore EXTRA='-e what=database -e to=2026-01-31T14:05:00Z -e confirm=zulip-production'
backup: setup ## database, files and inventory, now: make backup EXTRA='-e type=full'
	@$(PLAYBOOK) playbooks/backup.yml
backups: setup ## what backups there are, and the point in time they reach
	@$(PLAYBOOK) playbooks/backups.yml
restore: setup ## site, database, uploads, or a table for a look, from the backups
	@$(PLAYBOOK) playbooks/restore.yml
restore-drill: setup ## proves that the newest backup can be restored, as every day
	@$(PLAYBOOK) playbooks/restore_drill.yml
import-backup: setup ## an archive of manage.py backup, of a stock Zulip
	@$(PLAYBOOK) playbooks/import_backup.yml

# --- the repository ------------------------------------------------------------------------------------------------------
.PHONY: lint unit molecule test faults bench-converge bench-restore docs
lint: setup ## ansible-lint, yamllint, ruff, mypy, shellcheck, contracts
	@tests/lint
unit: setup ## pytest: modules, plugins, filters, stand-in
	@$(VENV)/pytest -q -n auto tests/unit
molecule: setup ## one scenario on the converged lab: make molecule ROLE=nginx
	@$(if $(filter zulip,$(ROLE)),LAB_INVENTORY=zulip) $(VENV)/molecule test --destroy never -s $(ROLE)
test: ## everything that CI runs
	@tests/run
faults: setup ## faults on the lab under load, from a seed: make faults N=40 SEED=7, or one of them: FAULT=kill-postgres N=20 (docs/faults.md)
	@$(VENV)/python -m tests.faults --number $(or $(N),20) $(if $(SEED),--seed $(SEED)) $(if $(FAULT),--fault '$(FAULT)')
bench-converge: setup ## bare to serving, second run, and the second run under stock ansible settings
	@tests/bench-converge
bench-restore: setup ## a restore next to a plain copy of the same bytes and to pg_basebackup
	@tests/bench-restore
docs: setup ## docs/ports.md and the roles' README files, from the data
	@$(VENV)/python tools/docs.py
