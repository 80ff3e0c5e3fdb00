{# A model's schema is the one it names, not <target>_<name>: mart schemas exist already and belong to the worker. #}
{% macro generate_schema_name(custom_schema_name, node) -%}
    {{ custom_schema_name if custom_schema_name is not none else target.schema }}
{%- endmacro %}
